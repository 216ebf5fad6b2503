"""Heads that keep everything beside heads that keep the newest (RazorAttention, arXiv 2407.15891).

What leaves the heads of the second kind is remembered as one token: the mean of the keys and that
of the values, with the weight of as many tokens as they stand for.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from backend.caches.attention import Queries, attend, mix, scores, weights
from backend.caches.base import AskedLayerCache, DenseLayerCache
from backend.caches.heads_codec import HeadsCodec


class HeadsLayerCache(AskedLayerCache):
    """The whole text of some heads; first, newest and the mean of all other tokens of the rest."""

    why = "The heads of this cache hold different tokens"

    def __init__(self, codec: HeadsCodec, index: int) -> None:
        self.codec, self.index = codec, index
        self.marks: Tensor | None = None
        self.whole, self.near = DenseLayerCache(), DenseLayerCache()
        self.sums: tuple[Tensor, Tensor] | None = None
        self.gone = 0
        self._length = 0
        self._rows: tuple[Tensor, Tensor] | None = None

    def attend(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        """Answer each kind of head from what it keeps; then forget what leaves the window."""
        if self._rows is None:
            self.marks = self.codec.table(self.index, "heads").to(keys.device)
            kept = self.marks.bool()
            self._rows = kept.nonzero().flatten(), (~kept).nonzero().flatten()
        found = torch.empty_like(queries.grouped(keys.shape[1]))
        for rows, answer in zip(self._rows, (self._answer_whole, self._answer_near), strict=True):
            if len(rows):
                part = queries.grouped(keys.shape[1])[:, rows].flatten(1, 2)
                asked = replace(queries, states=part)
                answered = answer(asked, keys[:, rows], values[:, rows])
                found[:, rows] = answered.unflatten(1, (len(rows), -1))
        self._length += keys.shape[2]
        self._settle()
        return found.flatten(1, 2)

    def _answer_whole(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        return attend(queries, *self.whole.append(keys, values))

    def _answer_near(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        held = self.near.length
        keys, values = self.near.append(keys, values)
        if self.sums is None:
            return attend(queries, keys, values)
        means = [(part / self.gone).to(keys.dtype) for part in self.sums]
        found = scores(queries, torch.cat([means[0], keys], 2))
        if queries.softcap is not None:
            found = queries.softcap * torch.tanh(found / queries.softcap)
        found[..., 0] += math.log(self.gone)
        shares = weights(found, None, queries.seen(held + 1))
        return mix(shares, torch.cat([means[1], values], 2))

    def _settle(self) -> None:
        codec = self.codec
        extra = self.near.length - codec.first - codec.window
        extra -= extra % codec.slack
        if extra <= 0:
            return
        left = [
            part[:, :, codec.first : codec.first + extra].float().sum(2, keepdim=True)
            for part in (self.near.keys, self.near.values)
        ]
        self.sums = tuple(a + b for a, b in zip(self.sums or (0.0, 0.0), left, strict=True))
        self.gone += extra
        self.near.pick(0, [*range(codec.first), *range(codec.first + extra, self.near.length)])

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
        self.whole.pick(start, places)
        self.near.pick(start - self.gone, places)
        self._length = min(self._length, start) + len(places)

    @property
    def croppable(self) -> int:
        """Fewer than would make tokens leave."""
        codec = self.codec
        if self._rows is not None and not len(self._rows[1]):
            return sys.maxsize
        return codec.first + codec.window + codec.slack - 1 - self.near.length

    def tensors(self) -> Iterator[Tensor]:
        """All that both kinds of head keep, and which is which."""
        yield from self.whole.tensors()
        yield from self.near.tensors()
        yield from self.sums or ()
        if self.marks is not None:
            yield self.marks

    @property
    def length(self) -> int:
        """Tokens taken in."""
        return self._length
