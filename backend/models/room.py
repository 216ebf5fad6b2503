"""Room for the dense keys and values of a text, set aside once and written into."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from backend.caches.base import Coming, LayerCache
from kernels import rooms


class Room(LayerCache):
    """Dense keys and values of one layer in room for a number of tokens, enlarged where needed."""

    def __init__(self, tokens: int, held: tuple[Tensor, Tensor] | None = None) -> None:
        """Set room aside.

        Args:
            tokens: that there is room for.
            held: the room itself [batch, heads, tokens, head_dim], if it is there already.
        """
        self._tokens, self._length = tokens, 0
        self._held = held
        self._both: Tensor | None = None  # keys and values of room that was set aside here

        self._placed: rooms.Room | None = None

    @property
    def held(self) -> tuple[Tensor, Tensor] | None:
        """The whole room of keys and of values; None before the first token."""
        return self._held

    @property
    def capacity(self) -> int:
        """Tokens that there is room for."""
        return self._tokens

    def grow(self, count: int) -> None:
        """Count tokens in that were written into the room."""
        self._length += count

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens behind the old."""
        start, end = self._length, self._length + keys.shape[2]
        held = self._held
        if held is None or end > self._tokens:
            held = self._held = self._enlarged(keys, end)
        held[0][:, :, start:end] = keys
        held[1][:, :, start:end] = values
        self._length = end
        return held[0][:, :, :end], held[1][:, :, :end]

    def reserve(self, coming: Coming) -> rooms.Room:
        """The whole room, into which the caller writes the tokens that come."""
        if self._held is None or self._length + coming.count > self._tokens:
            like = torch.empty(1, coming.heads, 0, coming.head_dim, dtype=coming.dtype)
            self._held = self._enlarged(like, self._length + coming.count)
        if self._placed is None or self._placed.states is not self._held:
            self._placed = rooms.Room(self._held)
        self.grow(coming.count)
        return self._placed

    def _enlarged(self, like: Tensor, needed: int) -> tuple[Tensor, Tensor]:
        if needed > self._tokens:
            self._tokens = max(needed, 2 * self._tokens)
        shape = *like.shape[:2], self._tokens, like.shape[3]
        self._both = like.new_empty(2, *shape)
        new = self._both[0], self._both[1]
        for mine, before in zip(new, self._held or (), strict=False):
            mine[:, :, : self._length] = before[:, :, : self._length]
        return new

    def pick(self, start: int, places: Sequence[int]) -> None:
        """Close up what is kept; a plain beginning of what follows needs no copy."""
        if start >= self._length:
            return
        if list(places) != list(range(len(places))):
            parts = self._held or () if self._both is None else (self._both,)
            for part in parts:
                index = torch.tensor(places, device=part.device) + start
                part[..., start : start + len(places), :] = part.index_select(-2, index)
        self._length = start + len(places)

    @property
    def croppable(self) -> int:
        """Any number."""
        return sys.maxsize

    def tensors(self) -> Iterator[Tensor]:
        """Keys and values, with the room that is still empty."""
        yield from self._held or ()

    @property
    def length(self) -> int:
        """Tokens taken in."""
        return self._length
