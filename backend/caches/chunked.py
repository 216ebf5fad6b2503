"""What caches share that hold old tokens in chunks and the newest as they are.

A chunk leaves the exact window as soon as the window would still be full without it, so what is
held does not depend on how many tokens came at a time.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from backend.caches.attention import Queries, Turn, attend
from backend.caches.base import Coming, DenseLayerCache, LayerCache
from kernels.rooms import Room, States


class ChunkedLayerCache(LayerCache):
    """Whole chunks of held tokens and an exact window behind them."""

    read_by_step: ClassVar[bool] = False
    """Whether attention depends on nothing but the states, and `_states` says how they lie."""

    def __init__(self, chunk: int, window: int) -> None:
        self.chunk, self.window = chunk, window
        self.chunks = 0
        self.recent = DenseLayerCache()
        self._read = False  # whether the room says how the chunks of now are read

    @abc.abstractmethod
    def _hold(self, keys: Tensor, values: Tensor) -> None:
        """Hold further chunks [batch, heads, chunks, tokens, head_dim] behind the others."""

    @abc.abstractmethod
    def _decode(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values [batch, heads, tokens, head_dim] of all chunks."""

    @abc.abstractmethod
    def _keep(self, chunks: int) -> None:
        """Forget all but the first chunks."""

    @abc.abstractmethod
    def _held(self) -> Iterator[Tensor]:
        """What the chunks are held in."""

    def _states(self, coming: Coming) -> tuple[States, States]:
        """How a step reads keys and values of all chunks as they lie, if it can."""
        raise NotImplementedError

    def reserve(self, coming: Coming) -> Room | None:
        """Room in the window, and the chunks before it."""
        if not self.read_by_step:
            return None
        room = self.recent.make_room(coming, self.window + self.chunk + coming.count)
        held = self.chunks * self.chunk
        if held and not (self._read and room.before == held):
            room.follow(held, self.chunk, *self._states(coming))
            self._read = True
        return room

    def settle(self) -> None:
        """Hold the chunks that leave the window."""
        if self._leaving:
            self._settle()

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Give decoded chunks, the window and the new tokens; then hold what leaves it."""
        seen = self._take(keys, values)
        self._settle()
        return seen

    def _take(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put new tokens into the window; returns all tokens."""
        keys, values = self.recent.append(keys, values)
        if self.chunks:
            old_keys, old_values = self._decode(keys.dtype)
            keys = torch.cat([old_keys, keys], dim=2)
            values = torch.cat([old_values, values], dim=2)
        return keys, values

    @property
    def _leaving(self) -> int:
        """Chunks that are to leave the window."""
        return max(0, (self.recent.length - self.window) // self.chunk)

    def _settle(self) -> None:
        """Hold the chunks that leave the window."""
        if count := self._leaving:
            gone = self.recent.drop(count * self.chunk)
            self._hold(*(part.unflatten(2, (count, self.chunk)) for part in gone))
            self.chunks, self._read = self.chunks + count, False

    def pick(self, start: int, places: Sequence[int]) -> None:
        """Cut off the end; a chunk that is cut comes back into the window, as it decodes."""
        whole = min(self.chunks, start // self.chunk)
        if whole < self.chunks:
            window = self.recent.keys, self.recent.values
            decoded = self._decode(window[0].dtype)
            self.recent.put(
                *(
                    torch.cat([old[:, :, whole * self.chunk :], new], dim=2)
                    for old, new in zip(decoded, window, strict=True)
                )
            )
            self._keep(whole)
            self.chunks, self._read = whole, False
        self.recent.pick(start - whole * self.chunk, places)

    @property
    def croppable(self) -> int:
        """Fewer than would make the next chunk leave the window."""
        return self.window + self.chunk - self.recent.length - 1

    def tensors(self) -> Iterator[Tensor]:
        """The chunks and the window."""
        yield from self._held()
        yield from self.recent.tensors()

    @property
    def length(self) -> int:
        """Tokens held."""
        return self.chunks * self.chunk + self.recent.length


class UnturnedLayerCache(ChunkedLayerCache):
    """Chunks that are held before the model's positions are turned into their keys."""

    attends = True

    def __init__(self, chunk: int, window: int) -> None:
        super().__init__(chunk, window)
        self._turn: Turn | None = None

    def attend(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        """Answer from decoded chunks, the window and the new tokens; then hold what leaves it."""
        self._turn = queries.turn
        found = attend(queries, *self._take(keys, values))
        self._settle()
        return found

    def _turned(self, keys: Tensor, start: int, sign: int) -> Tensor:
        """Keys [batch, heads, tokens, head_dim] from position `start` on.

        Turned as the model would with sign 1, turned back with -1.
        """
        if self._turn is None:
            return keys
        places = torch.arange(start, start + keys.shape[2], device=keys.device)
        return self._turn(keys, sign * places)
