"""Few channels find the tokens that a query attends (Double Sparsity, arXiv 2408.07092).

The label channels of all keys lie together; a query multiplies them alone, takes the tokens with
the largest shares, and only of those reads whole keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from backend.caches.attention import Queries, attend, scores, weights
from backend.caches.base import AskedLayerCache, DenseLayerCache
from backend.caches.integer import IntegerLayerCache
from backend.caches.labelled_codec import LabelledCodec

STEP = 64
"""Most new tokens that choose whom they attend; a longer text is read whole."""


class LabelledLayerCache(AskedLayerCache):
    """Label channels of keys, what else there is of them, and values."""

    why = "Tokens of this cache are chosen by the queries"

    def __init__(self, codec: LabelledCodec, index: int) -> None:
        self.codec, self.index = codec, index
        self.order: Tensor | None = None
        self.labels = DenseLayerCache()
        within = codec.within
        self.held = DenseLayerCache() if within is None else IntegerLayerCache(within)

    def attend(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        """Take in new tokens; each query answers from those that its label channels find."""
        if self.order is None:
            self.order = self.codec.table(self.index, "channels").to(keys.device)
        count, before = self.codec.channels, self.labels.length
        keys = _arranged(keys, self.order)  # labels first
        asked = _arranged(queries.grouped(keys.shape[1]).flatten(2, 3), self.order)
        asked = asked.unflatten(2, (-1, queries.count)).flatten(1, 2)
        queries = replace(queries, states=asked)
        keys, values, labels = self._taken(keys, values, count)
        seen = queries.seen(before)
        if queries.count > STEP or int(seen.sum(1).max()) <= self.codec.least:
            return attend(queries, keys, values, seen)
        return self._chosen(queries, (keys, values, labels), seen)

    def _taken(self, keys: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Hold new keys, labels first, and values; all keys and values there are by now, labels."""
        kept = keys.to(torch.bfloat16)
        labels = self.labels.append(kept[..., :count], kept[..., :0])[0].to(keys.dtype)
        if isinstance(self.held, IntegerLayerCache):
            return *self.held.append(keys, values), labels
        rest, values = self.held.append(kept[..., count:], values.to(torch.bfloat16))
        return torch.cat([labels, rest.to(keys.dtype)], 3), values.to(keys.dtype), labels

    def _chosen(
        self, queries: Queries, held: tuple[Tensor, Tensor, Tensor], seen: Tensor
    ) -> Tensor:
        """What queries find among the tokens with the largest shares by labels alone.

        The queries of a group choose together, so that a token is read once for all of them.
        """
        keys, values, labels = held
        few = replace(queries, states=queries.states[..., : labels.shape[3]])
        shares = weights(scores(few, labels), queries.softcap, seen).mean(2)
        wanted = (self.codec.share * seen.sum(1)).ceil().clamp(min=self.codec.least)
        most = min(int(wanted.max()), keys.shape[2])
        places = shares.topk(most).indices  # [batch, heads, new, most], the largest first
        ranks = torch.arange(most, device=keys.device)
        there = seen.expand(*places.shape[:3], -1).gather(3, places) & (ranks < wanted[:, None])
        near = _rows(keys, places)
        asked = queries.grouped(keys.shape[1]).float()  # [batch, heads, group, new, channels]
        found = torch.einsum("bhgnc,bhnkc->bhgnk", asked, near.float()) * queries.scale
        parts = weights(found, queries.softcap, there.unsqueeze(2))
        mixed = torch.einsum("bhgnk,bhnkc->bhgnc", parts, _rows(values, places).float())
        return mixed.flatten(1, 2).to(values.dtype)

    def pick(self, start: int, places: Sequence[int]) -> None:
        """Keep of the last tokens only some."""
        self.held.pick(start, places)
        self.labels.pick(start, places)

    @property
    def croppable(self) -> int:
        """As many as what holds the rest allows."""
        return self.held.croppable

    def tensors(self) -> Iterator[Tensor]:
        """Labels, all else, and which channels are labels."""
        yield from self.labels.tensors()
        yield from self.held.tensors()
        if self.order is not None:
            yield self.order

    @property
    def length(self) -> int:
        """Tokens taken in."""
        return self.labels.length


def _arranged(states: Tensor, order: Tensor) -> Tensor:
    """States [batch, heads, tokens, channels] with each head's channels in an order of its own."""
    places = order.long()[None, :, None].expand(*states.shape[:3], -1)
    return states.gather(3, places)


def _rows(states: Tensor, places: Tensor) -> Tensor:
    """States [batch, heads, tokens, channels] at places [batch, heads, new, most]."""
    flat = places.flatten(2).unsqueeze(-1).expand(-1, -1, -1, states.shape[3])
    return states.gather(2, flat).unflatten(2, places.shape[2:])
