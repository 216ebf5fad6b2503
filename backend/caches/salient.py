"""More bits for the tokens that attention looks at (ZipCache, arXiv 2405.14256).

A few probe queries are kept; when a chunk leaves the exact window, each of its tokens is weighed
by the attention the probes give it, divided by the number of probes that could see it. Keys are
rounded by channel; values token by token after each channel was divided by the root of its
largest size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from backend.caches.attention import Queries, attend, scores, weights
from backend.caches.base import Coming
from backend.caches.chunked import ChunkedLayerCache
from backend.caches.codecs import SalientCodec
from backend.caches.packed import Packed, behind
from kernels import bitpack, held_states
from kernels.rooms import Room, States


class _Parted:
    """Chunks whose salient and other tokens are held in codes of two widths."""

    def __init__(self, codec: SalientCodec, by_channel: bool) -> None:
        over = 3 if by_channel else 4
        self.by_channel = by_channel
        self.high, self.low = Packed(codec.high_bits, over), Packed(codec.low_bits, over)
        self.divisors: Tensor | None = None

    def extend(self, states: Tensor, order: Tensor, salient: int) -> None:
        """Hold further chunks; `order` [.., chunks, tokens] has the salient tokens first."""
        plain = states.float()
        if not self.by_channel:
            size = plain.abs().amax(3, keepdim=True).sqrt().clamp(min=1e-6)
            divisors = size.to(torch.bfloat16)
            plain = plain / divisors.float()
            self.divisors = behind(self.divisors, divisors)
        index = order.unsqueeze(-1).expand_as(plain)
        parts = plain.gather(3, index).split([salient, plain.shape[3] - salient], dim=3)
        for held, part in zip((self.high, self.low), parts, strict=True):
            held.extend(part)

    def decode(self, order: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
        """All states [batch, heads, tokens, channels] in their places."""
        parts = torch.cat([self.high.chunks(channels), self.low.chunks(channels)], dim=3)
        states = torch.empty_like(parts).scatter_(3, order.unsqueeze(-1).expand_as(parts), parts)
        if self.divisors is not None:
            states *= self.divisors.float()
        return states.flatten(2, 3).to(dtype)

    def read(self, channels: int, marks: Tensor) -> States:
        """How a step reads all states; `marks` [.., chunks, bytes] has a bit a token."""
        high, low = self.high.read(channels), self.low.read(channels)
        return held_states.parted(high, low, marks, self.divisors)

    def keep(self, chunks: int) -> None:
        """Forget all but the first chunks."""
        self.high.keep(chunks)
        self.low.keep(chunks)
        if self.divisors is not None:
            self.divisors = self.divisors[:, :, :chunks].clone()

    def tensors(self) -> Iterator[Tensor]:
        """All that is kept."""
        yield from self.high.tensors()
        yield from self.low.tensors()
        if self.divisors is not None:
            yield self.divisors


class SalientLayerCache(ChunkedLayerCache):
    """Chunks in two widths, an exact window, and the queries of the window's probes."""

    attends = True
    read_by_step = True

    def __init__(self, codec: SalientCodec) -> None:
        super().__init__(codec.chunk, codec.window)
        self.codec = codec
        self.keys, self.values = _Parted(codec, codec.keys_by_channel), _Parted(codec, False)
        self.marks: Tensor | None = None
        self.probes: Tensor | None = None
        self.rows: list[int] = []
        self._weighed: Tensor | None = None
        self._noted: Tensor | None = None
        self._coming: Coming | None = None

    def attend(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        """Answer from decoded chunks, the window and the new tokens; then hold what leaves it."""
        start = self.length
        places = queries.positions.tolist()
        keys, values = self._take(keys, values)
        found = attend(queries, keys, values)
        probing = [row for row, at in enumerate(places) if at % self.chunk in self.codec.probes]
        if probing:
            self._keep_probes(queries.states[:, :, probing], [start + row for row in probing])
        if self._leaving:
            self._weighed = self._weigh(queries, keys)
        self._settle()
        return found

    def reserve(self, coming: Coming) -> Room | None:
        """As the others; of a token alone the step notes the queries that are kept."""
        start, count = self.length, coming.count
        probing = any(at % self.chunk in self.codec.probes for at in range(start, start + count))
        leaving = self.recent.length + count >= self.window + self.chunk
        if (probing or leaving) and (count > 1 or not coming.query_heads):
            return None
        room = super().reserve(coming)
        shape = count, coming.query_heads, coming.head_dim
        self._noted = torch.empty(shape) if probing else None
        self._coming = coming
        room.note(self._noted)
        return room

    def settle(self) -> None:
        """Keep a noted query, and weigh by those kept what leaves the window."""
        if self._noted is not None:
            fresh = self._noted.transpose(0, 1)[None].to(self._coming.dtype)
            self._keep_probes(fresh, [self.length - 1])
            self._noted = None
        if self._leaving:
            keys = self.recent.keys
            if self.chunks:
                keys = torch.cat([self._decode(keys.dtype)[0], keys], dim=2)
            asked = Queries(self.probes, self._coming.scale, torch.tensor(self.rows))
            self._weighed = self._weigh(asked, keys)
            self._settle()

    def _keep_probes(self, fresh: Tensor, rows: list[int]) -> None:
        self.probes = fresh if self.probes is None else torch.cat([self.probes, fresh], 2)
        self.rows += rows

    def _states(self, coming: Coming) -> tuple[States, States]:
        held = self.keys, self.values
        keys, values = (one.read(coming.head_dim, self.marks) for one in held)
        return keys, values

    def _weigh(self, queries: Queries, keys: Tensor) -> Tensor:
        """Normalised attention [batch, heads, tokens] that the probes give each token."""
        rows = torch.tensor(self.rows, device=keys.device)
        asked = Queries(self.probes, queries.scale, rows)
        seen = torch.arange(keys.shape[2], device=keys.device) <= rows[:, None]
        given = weights(scores(asked, keys), queries.softcap, seen).sum((2, 3))
        return given / seen.sum(0).clamp(min=1)

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        start, count = self.chunks * self.chunk, keys.shape[2]
        if self._weighed is None:  # nobody asked: the newest of a chunk are as good as any
            weighed = torch.arange(self.chunk, device=keys.device).expand(*keys.shape[:4])
        else:
            weighed = self._weighed[:, :, start : start + count * self.chunk]
            weighed = weighed.unflatten(2, (count, self.chunk))
        best = weighed.topk(self.codec.salient, dim=-1).indices
        marks = torch.zeros(weighed.shape, dtype=torch.uint8, device=keys.device)
        marks.scatter_(-1, best, 1)
        order = _salient_first(marks)
        self.keys.extend(keys, order, self.codec.salient)
        self.values.extend(values, order, self.codec.salient)
        packed = bitpack.pack_plane(marks.flatten(0, 2), 1).view(*marks.shape[:3], -1)
        self.marks = behind(self.marks, packed)
        self._weighed = None
        first = start + count * self.chunk
        self._probe_only([index for index, row in enumerate(self.rows) if row >= first])

    def _probe_only(self, indices: list[int]) -> None:
        if self.probes is not None and len(indices) < len(self.rows):
            self.probes = self.probes[:, :, indices].clone()
            self.rows = [self.rows[index] for index in indices]

    def pick(self, start: int, places: Sequence[int]) -> None:
        """Cut off the end, and the probes there."""
        moved = {start + place: start + new for new, place in enumerate(places)}
        self._probe_only(
            [index for index, row in enumerate(self.rows) if row < start or row in moved]
        )
        self.rows = [row if row < start else moved[row] for row in self.rows]
        super().pick(start, places)

    def _decode(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        channels = self.recent.keys.shape[3]
        flat = bitpack.unpack_plane(self.marks.flatten(0, 2), 1, self.chunk)
        order = _salient_first(flat.view(*self.marks.shape[:3], self.chunk))
        return self.keys.decode(order, channels, dtype), self.values.decode(order, channels, dtype)

    def _keep(self, chunks: int) -> None:
        self.keys.keep(chunks)
        self.values.keep(chunks)
        self.marks = self.marks[:, :, :chunks].clone()

    def _held(self) -> Iterator[Tensor]:
        yield from self.keys.tensors()
        yield from self.values.tensors()
        yield from (part for part in (self.marks, self.probes) if part is not None)


def _salient_first(marks: Tensor) -> Tensor:
    """Order [..., tokens] with the marked tokens before the others, each as they stood."""
    return (1 - marks).argsort(dim=-1, stable=True)
