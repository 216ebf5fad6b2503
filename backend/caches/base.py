"""The contract of a cache: a policy and a codec; knows no model.

A layer's cache takes new keys and values [batch, heads, tokens, head_dim]. What it keeps between
two steps is all that is counted. Most give back all that attention may see; one whose answer
depends on the queries, or that computes on what it holds, says so by `attends`.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from backend.caches.attention import Queries, Turn, attend
from kernels.rooms import Room


@dataclass(frozen=True)
class Coming:
    """The tokens that a step of one text is about to write.

    Attributes:
        heads: of keys and values.
        head_dim: of each.
        count: tokens.
        dtype: that they are kept in.
        turn: the model's rotary embedding; None where there is none.
        query_heads: heads of the queries; 0 where nobody says.
        scale: what products of queries and keys are multiplied by.
    """

    heads: int
    head_dim: int
    count: int
    dtype: torch.dtype
    turn: Turn | None = None
    query_heads: int = 0
    scale: float = 1.0


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

    def reserve(self, coming: Coming) -> Room | None:  # noqa: ARG002 - most must be asked
        """Count in tokens that a step writes and attends to by itself, and say where.

        None, and nothing is counted, where the step must ask through `attend`.
        """
        return None

    def settle(self) -> None:  # noqa: B027 - most have nothing to do
        """Take care of what a step has written into the room it was given."""

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


class AskedLayerCache(LayerCache):
    """Gives nothing back without queries: what they look at decides."""

    attends = True
    why: ClassVar[str]
    """In a sentence without its end."""

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Refuse.

        Raises:
            TypeError: always; `attend` is the way in.
        """
        raise TypeError(f"{self.why}; ask through `attend`.")


class DenseLayerCache(LayerCache):
    """Keys and values as they are.

    A step writes them into room that is a little longer; what is empty there is no cache, but
    what a step works in.
    """

    def __init__(self) -> None:
        self._states: tuple[Tensor, Tensor] | None = None
        self._length = 0
        self._room: Room | None = None
        self._both: Tensor | None = None  # the states of that room

    @property
    def keys(self) -> Tensor | None:
        """[batch, heads, tokens, head_dim], or None before the first."""
        return self._states and self._states[0][:, :, : self._length]

    @property
    def values(self) -> Tensor | None:
        """Beside the keys."""
        return self._states and self._states[1][:, :, : self._length]

    def put(self, keys: Tensor, values: Tensor) -> None:
        """Hold these and nothing else."""
        self._states, self._length = (keys, values), keys.shape[2]
        self._room = self._both = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the new tokens behind the old."""
        if self._states is not None:
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        self.put(keys, values)
        return keys, values

    def make_room(self, coming: Coming, most: int) -> Room:
        """Room for those that come behind the old tokens, for at least `most` in all."""
        needed = self._length + coming.count
        if self._room is None or needed > self._states[0].shape[2]:
            shape = 1, coming.heads, max(needed, most), coming.head_dim
            both = torch.empty(2, *shape, dtype=coming.dtype)
            for room, old in zip(both, (self.keys, self.values), strict=True):
                if old is not None:
                    room[:, :, : self._length] = old
            self._states = tuple(both.unbind(0))
            self._both, self._room = both, Room(self._states)
        self._length = needed
        return self._room

    def pick(self, start: int, places: Sequence[int]) -> None:
        """Close up what is kept."""
        if self._states is None or (not places and start >= self.length):
            return
        kept = [*range(min(start, self.length)), *(start + place for place in places)]
        index = torch.tensor(kept, dtype=torch.int64, device=self.keys.device)
        self._put_back(*(part.index_select(2, index) for part in (self.keys, self.values)))

    def drop(self, count: int) -> tuple[Tensor, Tensor]:
        """Give up the first `count` tokens; returns them."""
        if self._room is not None:
            held = self._both[..., : self._length, :]
            gone, kept = held[..., :count, :].clone(), held[..., count:, :]
            self._length -= count
            self._both[..., : self._length, :] = kept.clone() if self._length > count else kept
            return tuple(gone.unbind(0))
        gone = self.keys[:, :, :count].clone(), self.values[:, :, :count].clone()
        self.put(self.keys[:, :, count:].clone(), self.values[:, :, count:].clone())
        return gone

    def _put_back(self, keys: Tensor, values: Tensor) -> None:
        """Hold fewer than before, in the same room if there is one."""
        if self._room is None:
            self.put(keys, values)
            return
        self._length = keys.shape[2]
        for room, part in zip(self._states, (keys, values), strict=True):
            room[:, :, : self._length] = part

    @property
    def croppable(self) -> int:
        """Any number."""
        return sys.maxsize

    def tensors(self) -> Iterator[Tensor]:
        """Keys and values."""
        if self._states is not None:
            yield self.keys
            yield self.values

    @property
    def length(self) -> int:
        """Tokens held."""
        return self._length
