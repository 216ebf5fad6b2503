"""The first tokens and a window of the newest; all others are gone (LM-Infinite, arXiv 2308.16137).

A token sees the first ones and those less than `window` before it. The first ones stay at most
`limit` away: beyond that their scores are those of that distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from backend.caches.attention import Queries, attend, mix, scores, weights
from backend.caches.base import Coming, DenseLayerCache, LayerCache
from backend.caches.codecs import WindowCodec
from kernels.rooms import Room


class WindowLayerCache(LayerCache):
    """The tokens still there, and how many between first and newest are not."""

    attends = True

    def __init__(self, codec: WindowCodec) -> None:
        self.codec = codec
        self.held = DenseLayerCache()
        self.gone = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Give all that is held and the new tokens; which of them a token sees, `attend` knows."""
        seen = self.held.append(keys, values)
        self._settle()
        return seen

    def attend(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        """Answer from the first tokens and each token's own window."""
        codec, before = self.codec, self.held.length
        places = torch.arange(before, device=keys.device)
        places = torch.where(places < codec.first, places, places + self.gone)
        places = torch.cat([places, queries.positions])
        keys, values = self.append(keys, values)
        distance = queries.positions[:, None] - places
        seen = queries.seen(before) & ((distance < codec.window) | (places < codec.first))
        far = (places < codec.first) & (distance > codec.limit)
        if queries.turn is None or not bool(far.any()):
            return attend(queries, keys, values, seen)
        found = scores(queries, keys)
        count = min(codec.first, keys.shape[2])
        near = _at_distance(queries, keys[:, :, :count], places[:count], codec.limit)
        found[..., :count] = torch.where(far[:, :count], near, found[..., :count])
        return mix(weights(found, queries.softcap, seen), values)

    def reserve(self, coming: Coming) -> Room | None:
        """Room behind the tokens still there; none where the first ones are beyond the limit."""
        codec, most = self.codec, self.codec.first + self.codec.window + self.codec.slack
        if coming.turn is not None and self.length + coming.count > codec.limit:
            return None
        room = self.held.make_room(coming, most + coming.count)
        room.see(codec.first, codec.window, self.gone)
        return room

    def settle(self) -> None:
        """Drop the tokens that no later one sees."""
        self._settle()

    def _settle(self) -> None:
        first, slack = self.codec.first, self.codec.slack
        extra = self.held.length - first - self.codec.window
        if extra < slack:
            return
        extra -= extra % slack
        kept = [*range(first), *range(first + extra, self.held.length)]
        self.held.pick(0, kept)
        self.gone += extra

    def pick(self, start: int, places: Sequence[int]) -> None:
        """Cut off the end.

        Raises:
            ValueError: what was there has been dropped.
        """
        if self.gone and start < self.codec.first + self.gone:
            raise ValueError(
                f"Tokens before {self.codec.first + self.gone} were dropped, so a cache cannot be "
                f"cut to {start}; ask `croppable` first."
            )
        self.held.pick(start - self.gone, places)

    @property
    def croppable(self) -> int:
        """Fewer than would make tokens leave."""
        codec = self.codec
        return codec.first + codec.window + codec.slack - 1 - self.held.length

    def tensors(self) -> Iterator[Tensor]:
        """The tokens still there."""
        yield from self.held.tensors()

    @property
    def length(self) -> int:
        """Tokens taken in."""
        return self.held.length + self.gone


def _at_distance(queries: Queries, keys: Tensor, places: Tensor, limit: int) -> Tensor:
    """Scores as if every query stood `limit` after every key."""
    turned = queries.turn(queries.states, limit - queries.positions)
    asked = Queries(turned, queries.scale, queries.positions)
    return scores(asked, queries.turn(keys, -places))
