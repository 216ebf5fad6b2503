"""Keys and values as codes of what a rotation spread evenly (RotateKV, arXiv 2501.16383).

Keys are turned back to position 0, their channels put in the order that the model's own keys gave,
and rotated by a Walsh-Hadamard transform, several heads as one; values are rotated head by head.
What is decoded went the same way back, so that only rounding is left of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from backend.caches.chunked import UnturnedLayerCache
from backend.caches.packed import Packed
from backend.caches.rotated_codec import RotatedCodec, block_of, group_of
from kernels import scaled_mm


def rotated(rows: Tensor, block: int) -> Tensor:
    """Rows [..., channels] turned block by block; done twice it gives them back."""
    if block == 1:
        return rows
    ones = torch.ones(block, device=rows.device)
    flat = rows.reshape(-1, block).contiguous()
    if block <= scaled_mm.WIDEST:
        return scaled_mm.rotate(flat, ones).view(rows.shape)
    raise ValueError(f"{block} channels are rotated as one and {scaled_mm.WIDEST} can be.")


class _Grouped:
    """Codes of whole tokens [batch, chunks, tokens, channels] of all heads, in groups."""

    def __init__(self, bits: int) -> None:
        self.codes, self.group = Packed(bits, over=4), 0

    def extend(self, rows: Tensor, group: int) -> None:
        """Hold further chunks behind the others."""
        self.group = group
        self.codes.extend(rows.unflatten(3, (-1, group)).permute(0, 3, 1, 2, 4))

    def rows(self) -> Tensor:
        """All tokens [batch, tokens, channels] in float32."""
        parts = self.codes.chunks(self.group)  # [batch, groups, chunks, tokens, channels]
        return parts.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)


class RotatedLayerCache(UnturnedLayerCache):
    """Codes of rotated chunks, an exact window, and the exact sinks of the first chunk."""

    def __init__(self, codec: RotatedCodec, index: int) -> None:
        super().__init__(codec.chunk, codec.window)
        self.codec, self.index = codec, index
        self.keys, self.values = _Grouped(codec.key_bits), _Grouped(codec.value_bits)
        self.order: Tensor | None = None
        self.sinks: tuple[Tensor, Tensor, Tensor] | None = None

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        heads, head_dim = keys.shape[1], keys.shape[4]
        channels, codec = heads * head_dim, self.codec
        if self.order is None:
            self.order = codec.table(self.index, "order").to(keys.device)
        if not self.chunks and codec.sinks:
            self._keep_sinks(keys[:, :, 0], values[:, :, 0])
        plain = self._turned(keys.float().flatten(2, 3), self.chunks * self.chunk, -1)
        together = plain.transpose(1, 2).flatten(2)[:, :, self.order.long()]
        together = rotated(together, block_of(channels, codec.together * head_dim))
        alone = rotated(values.float().flatten(2, 3), block_of(head_dim, head_dim))
        alone = alone.transpose(1, 2).flatten(2)
        group = group_of(channels, codec.group_size)
        for held, rows in ((self.keys, together), (self.values, alone)):
            held.extend(rows.unflatten(1, (-1, self.chunk)), group)

    def _keep_sinks(self, keys: Tensor, values: Tensor) -> None:
        """Keep what attention rests on: tokens of a first chunk whose values are next to none."""
        size = values.float().square().sum((1, 3))
        places = size.topk(self.codec.sinks, dim=-1, largest=False).indices
        self.sinks = places.short(), *(_at(part, places) for part in (keys, values))

    def _decode(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        heads, head_dim = self.recent.keys.shape[1], self.recent.keys.shape[3]
        block = block_of(heads * head_dim, self.codec.together * head_dim)
        ordered = rotated(self.keys.rows(), block)
        plain = torch.empty_like(ordered)
        plain[:, :, self.order.long()] = ordered
        keys = self._turned(plain.unflatten(2, (heads, -1)).transpose(1, 2), 0, 1)
        alone = self.values.rows().unflatten(2, (heads, -1)).transpose(1, 2)
        values = rotated(alone, block_of(head_dim, head_dim))
        keys, values = keys.to(dtype), values.to(dtype)
        if self.sinks is not None:
            places, *exact = self.sinks
            for states, part in zip((keys, values), exact, strict=True):
                states.scatter_(2, _index(places, part), part)
        return keys, values

    def _keep(self, chunks: int) -> None:
        self.keys.codes.keep(chunks)
        self.values.codes.keep(chunks)
        if not chunks:
            self.sinks = None

    def _held(self) -> Iterator[Tensor]:
        yield from self.keys.codes.tensors()
        yield from self.values.codes.tensors()
        yield from self.sinks or ()
        if self.order is not None:
            yield self.order


def _at(states: Tensor, places: Tensor) -> Tensor:
    """States [batch, heads, places, channels] of some tokens [batch, places]."""
    shape = states.shape[0], states.shape[1], places.shape[1], states.shape[3]
    return states.gather(2, places.long()[:, None, :, None].expand(shape))


def _index(places: Tensor, like: Tensor) -> Tensor:
    return places.long()[:, None, :, None].expand_as(like)
