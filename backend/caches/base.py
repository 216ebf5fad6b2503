"""The contract of a cache: a policy and a codec; knows no model.

A layer's cache takes new keys and values [batch, heads, tokens, head_dim]. What it keeps between
two steps is all that is counted. Most give back all that attention may see; one whose answer
depends on the queries, or that computes on what it holds, says so by `attends`.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from backend.caches.attention import Queries, attend


class LayerCache(abc.ABC):
    """Keys and values of one layer."""

    attends: ClassVar[bool] = False
    """Whether a model must ask through `attend`, because `append` would not be the same."""

    @abc.abstractmethod
    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take in new tokens; returns keys and values of all tokens, the new ones exact."""

    def attend(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        """Take in new tokens; returns what their queries find, [batch, heads, tokens, head_dim]."""
        return attend(queries, *self.append(keys, values))

    @abc.abstractmethod
    def pick(self, start: int, places: Sequence[int]) -> None:
        """Of the tokens after the first `start` keep only those at these places, in this order."""

    def crop(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        self.pick(length, ())

    @property
    @abc.abstractmethod
    def croppable(self) -> int:
        """Tokens that may be appended next and be cropped again without a trace."""

    @abc.abstractmethod
    def tensors(self) -> Iterator[Tensor]:
        """Everything that is kept between two steps."""

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """Tokens taken in."""

    @property
    def nbytes(self) -> int:
        """Bytes kept between two steps."""
        return sum(tensor.nbytes for tensor in self.tensors())


class DenseLayerCache(LayerCache):
    """Keys and values as they are."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the new tokens behind the old."""
        if self.keys is not None:
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values

    def pick(self, start: int, places: Sequence[int]) -> None:
        """Close up what is kept."""
        if self.keys is None or (not places and start >= self.length):
            return
        kept = [*range(min(start, self.length)), *(start + place for place in places)]
        index = torch.tensor(kept, dtype=torch.int64, device=self.keys.device)
        self.keys, self.values = (part.index_select(2, index) for part in (self.keys, self.values))

    def drop(self, count: int) -> tuple[Tensor, Tensor]:
        """Give up the first `count` tokens; returns them."""
        gone = self.keys[:, :, :count], self.values[:, :, :count]
        self.keys, self.values = (part[:, :, count:].clone() for part in (self.keys, self.values))
        return gone

    @property
    def croppable(self) -> int:
        """Any number."""
        return sys.maxsize

    def tensors(self) -> Iterator[Tensor]:
        """Keys and values."""
        if self.keys is not None:
            yield self.keys
            yield self.values

    @property
    def length(self) -> int:
        """Tokens held."""
        return 0 if self.keys is None else self.keys.shape[2]
