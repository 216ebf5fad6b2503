"""What measuring and decoding ask of a language model: two protocols and nothing else.

Whoever loads models implements them; here there is no loading, no tokenizer, no generation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Session(Protocol):
    """A batch of sequences and the cache that holds them."""

    length: int

    def feed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append `tokens` [B, t] and return the logits [B, t, V] of those positions."""
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

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits [B, T, V] of right-padded `tokens` [B, T], in the model's dtype."""
        ...

    def session(self, batch: int, length: int) -> Session:
        """Return a fresh cache for `batch` sequences of at most `length` tokens."""
        ...
