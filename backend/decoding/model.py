"""What measuring and decoding ask of a language model: two protocols and nothing else.

Whoever loads models implements them; here there is no loading, no tokenizer, no generation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    import torch


@runtime_checkable
class Session(Protocol):
    """A batch of sequences and the cache that holds them.

    Attributes:
        length: tokens held.
        branching: whether a tree of tokens can be fed.
    """

    length: int
    branching: bool

    def feed(self, tokens: torch.Tensor, parents: Sequence[int] | None = None) -> torch.Tensor:
        """Append `tokens` [B, t] and return the logits [B, t, V] of those positions.

        For a tree, `parents` has the index of the token that each follows, an earlier one, or -1
        for the text's last; a token sees the text and its own branch.
        """
        ...

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append `tokens` [B, t] and return the logits [B, V] of the last position alone."""
        ...

    def ahead(self, token: int, count: int, end: int | None) -> list[int]:
        """Append `token` and then each first choice but the last, of one sequence, in one call.

        Returns the choices, up to `count` or `end`, or fewer; none where there is no such call.
        """
        ...

    def pick(self, start: int, places: Sequence[int]) -> None:
        """Of the tokens from `start` on keep only those at these places, in this order."""
        ...

    def crop(self, length: int) -> None:
        """Forget every position from `length` on."""
        ...

    def croppable(self) -> int:
        """Return how many tokens may be fed next and be cropped again without a trace."""
        ...

    def cache_bytes(self) -> int:
        """Bytes of the storages the cache holds now."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """A causal model over token ids."""

    vocabulary_size: int
    end_token: int | None
    device: torch.device
    has_cache_method: bool
    skippable: tuple[str, ...]

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits [B, T, V] of right-padded `tokens` [B, T], in the model's dtype."""
        ...

    def session(self, batch: int, length: int) -> Session:
        """Return a fresh cache for `batch` sequences of at most `length` tokens."""
        ...

    def without(self, halves: Sequence[str]) -> AbstractContextManager[None]:
        """Inside, run as if these of `skippable` added nothing to what flows by."""
        ...
