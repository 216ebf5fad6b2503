"""Keys quantised by channel, values by token, the newest tokens exact (KIVI, arXiv 2402.02750).

A chunk of `group_size` tokens leaves the exact window as soon as the window would still be
full without it. A key channel's scale and offset span the chunk; a value's span a token's
channels of one head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.caches.base import Codec, DenseLayerCache, LayerCache
from kernels import bitpack


@dataclass(frozen=True)
class IntegerCodec(Codec):
    """Code bits of keys and values, tokens in a chunk, and tokens kept exact."""

    key_bits: int
    value_bits: int
    group_size: int
    window: int
    keys_by_channel: bool = True

    def layer(self, index: int) -> LayerCache:  # noqa: ARG002 - all layers alike
        """An empty cache."""
        return IntegerLayerCache(self)

    def bits(self, heads: int, head_dim: int) -> float:  # noqa: ARG002 - a scale for each head
        """Codes, scales and offsets; the exact window is a fixed cost on top."""
        shared = self.group_size if self.keys_by_channel else head_dim
        keys = _code_bits(self.key_bits, head_dim) + 32 / shared
        values = _code_bits(self.value_bits, head_dim) + 32 / head_dim
        return (keys + values) / 2


def _code_bits(bits: int, head_dim: int) -> float:
    """Bits that a number's code takes: planes fill whole bytes of a token's channels."""
    planes = bitpack.plane_widths(bits)
    return sum(8 * bitpack.packed_columns(head_dim, width) for width in planes) / head_dim


class _Packed:
    """Codes of whole chunks [batch, heads, chunks, tokens, channels] and what scales them.

    Scales and offsets are bfloat16 whatever the states are, as the budget counts them.

    Args:
        bits: of a code.
        over: dimension that shares a scale and an offset: 3 for tokens, 4 for channels.
    """

    def __init__(self, bits: int, over: int) -> None:
        self.bits, self.over = bits, over
        self.planes: dict[int, Tensor] = {}
        self.scales: Tensor | None = None
        self.offsets: Tensor | None = None

    def extend(self, states: Tensor) -> None:
        """Quantise further chunks [batch, heads, chunks, tokens, channels] behind the others."""
        low = states.amin(self.over, keepdim=True).to(torch.float32)
        high = states.amax(self.over, keepdim=True).to(torch.float32)
        levels = (1 << self.bits) - 1
        scales = ((high - low) / levels).clamp(min=1e-8).to(torch.bfloat16)
        offsets = low.to(torch.bfloat16)
        codes = ((states.float() - offsets.float()) / scales.float()).round().clamp(0, levels)
        for width, plane in bitpack.pack(codes.flatten(0, 3), self.bits).items():
            plane = plane.view(*states.shape[:4], -1)
            self.planes[width] = _behind(self.planes.get(width), plane)
        self.scales = _behind(self.scales, scales)
        self.offsets = _behind(self.offsets, offsets)

    def decode(self, channels: int, dtype: torch.dtype) -> Tensor:
        """All states [batch, heads, tokens, channels], computed in float32."""
        shape = self.planes[max(self.planes)].shape[:4]
        flat = {width: plane.flatten(0, 3) for width, plane in self.planes.items()}
        codes = bitpack.unpack(flat, channels).view(*shape, channels)
        states = codes.float().mul_(self.scales.float()).add_(self.offsets.float())
        return states.flatten(2, 3).to(dtype)

    def keep(self, chunks: int) -> None:
        """Forget all but the first chunks."""
        self.planes = {width: plane[:, :, :chunks].clone() for width, plane in self.planes.items()}
        self.scales = self.scales[:, :, :chunks].clone()
        self.offsets = self.offsets[:, :, :chunks].clone()

    def tensors(self) -> Iterator[Tensor]:
        """All that is kept."""
        yield from self.planes.values()
        if self.scales is not None:
            yield self.scales
            yield self.offsets


class IntegerLayerCache(LayerCache):
    """Whole chunks of quantised tokens and an exact window behind them."""

    def __init__(self, codec: IntegerCodec) -> None:
        self.codec = codec
        self.chunks = 0
        self.keys = _Packed(codec.key_bits, over=3 if codec.keys_by_channel else 4)
        self.values = _Packed(codec.value_bits, over=4)
        self.recent = DenseLayerCache()

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Attend to decoded chunks, the window and the new tokens; then pack what leaves it."""
        keys, values = self.recent.append(keys, values)
        if self.chunks:
            old_keys = self.keys.decode(keys.shape[3], keys.dtype)
            old_values = self.values.decode(values.shape[3], values.dtype)
            keys = torch.cat([old_keys, keys], dim=2)
            values = torch.cat([old_values, values], dim=2)
        self._pack()
        return keys, values

    def _pack(self) -> None:
        size = self.codec.group_size
        count = (self.recent.length - self.codec.window) // size
        if count < 1:
            return
        held = (self.recent.keys, self.keys), (self.recent.values, self.values)
        for states, packed in held:
            packed.extend(states[:, :, : count * size].unflatten(2, (count, size)))
        self.recent.keys = self.recent.keys[:, :, count * size :].clone()
        self.recent.values = self.recent.values[:, :, count * size :].clone()
        self.chunks += count

    def crop(self, length: int) -> None:
        """Cut off the end; a chunk that is cut comes back into the window, as it decodes."""
        size = self.codec.group_size
        whole = min(self.chunks, length // size)
        if whole < self.chunks:
            recent = self.recent
            keys = self.keys.decode(recent.keys.shape[3], recent.keys.dtype)
            values = self.values.decode(recent.values.shape[3], recent.values.dtype)
            recent.keys = torch.cat([keys[:, :, whole * size :], recent.keys], dim=2)
            recent.values = torch.cat([values[:, :, whole * size :], recent.values], dim=2)
            self.keys.keep(whole)
            self.values.keep(whole)
            self.chunks = whole
        self.recent.crop(length - whole * size)

    @property
    def croppable(self) -> int:
        """Fewer than would make the next chunk leave the window."""
        return self.codec.window + self.codec.group_size - self.recent.length - 1

    def tensors(self) -> Iterator[Tensor]:
        """Codes, scales, offsets and the window."""
        yield from self.keys.tensors()
        yield from self.values.tensors()
        yield from self.recent.tensors()

    @property
    def length(self) -> int:
        """Tokens held."""
        return self.chunks * self.codec.group_size + self.recent.length


def _behind(old: Tensor | None, new: Tensor) -> Tensor:
    return new if old is None else torch.cat([old, new], dim=2)
