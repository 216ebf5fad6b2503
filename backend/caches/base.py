"""The contract of a cache: a policy and a codec; knows no model.

A layer's cache takes new keys and values [batch, heads, tokens, head_dim] and gives back all
that attention may see. What it keeps between two steps is all that is counted.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Iterator

import torch
from torch import Tensor


class LayerCache(abc.ABC):
    """Keys and values of one layer."""

    @abc.abstractmethod
    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take in new tokens; returns keys and values of all tokens, the new ones exact."""

    @abc.abstractmethod
    def crop(self, length: int) -> None:
        """Forget all tokens after the first `length`."""

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
        """Tokens held."""

    @property
    def nbytes(self) -> int:
        """Bytes kept between two steps."""
        return sum(tensor.nbytes for tensor in self.tensors())


class Codec(abc.ABC):
    """How many bits a cache takes, and a fresh one for each layer."""

    @abc.abstractmethod
    def layer(self, index: int) -> LayerCache:
        """An empty cache for layer `index`."""

    @abc.abstractmethod
    def bits(self, heads: int, head_dim: int) -> float:
        """Bits per number of keys and values once the window is full, everything counted."""


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

    def crop(self, length: int) -> None:
        """Cut off the end."""
        if self.keys is not None:
            self.keys = self.keys[:, :, :length].clone()
            self.values = self.values[:, :, :length].clone()

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
