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

    def layer(self, index: int) -> LayerCache:  # noqa: ARG002 - all layers alike
        """An empty cache."""
        return IntegerLayerCache(self)

    def bits(self, heads: int, head_dim: int) -> float:  # noqa: ARG002 - a scale for each head
        """Codes, scales and offsets; the exact window is a fixed cost on top."""
        keys = _code_bits(self.key_bits, head_dim) + 32 / self.group_size
        values = _code_bits(self.value_bits, head_dim) + 32 / head_dim
        return (keys + values) / 2


def _code_bits(bits: int, head_dim: int) -> float:
    """Bits that a number's code takes: planes fill whole bytes of a token's channels."""
    planes = bitpack.plane_widths(bits)
    return sum(8 * bitpack.packed_columns(head_dim, width) for width in planes) / head_dim


@dataclass
class _Chunk:
    """Codes of [batch, heads, tokens, head_dim], packed along the last dimension.

    Scales and offsets are bfloat16 whatever the states are, as the budget counts them.
    """

    planes: dict[int, Tensor]
    scales: Tensor
    offsets: Tensor
    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def encode(cls, states: Tensor, bits: int, dim: int) -> _Chunk:
        """Quantise with one scale and offset along `dim`."""
        low = states.amin(dim, keepdim=True).to(torch.float32)
        high = states.amax(dim, keepdim=True).to(torch.float32)
        levels = (1 << bits) - 1
        scales = ((high - low) / levels).clamp(min=1e-8).to(torch.bfloat16)
        offsets = low.to(torch.bfloat16)
        codes = ((states.float() - offsets.float()) / scales.float()).round().clamp(0, levels)
        planes = bitpack.pack(codes.flatten(0, 2), bits)
        return cls(planes, scales, offsets, tuple(states.shape), states.dtype)

    def decode(self) -> Tensor:
        """The states back, in their type."""
        codes = bitpack.unpack(self.planes, self.shape[-1]).view(self.shape)
        return (codes * self.scales.float() + self.offsets.float()).to(self.dtype)

    def tensors(self) -> Iterator[Tensor]:
        """All that is kept."""
        yield from self.planes.values()
        yield self.scales
        yield self.offsets


class IntegerLayerCache(LayerCache):
    """Chunks of quantised tokens and an exact window behind them."""

    def __init__(self, codec: IntegerCodec) -> None:
        self.codec = codec
        self.chunks: list[tuple[_Chunk, _Chunk]] = []
        self.recent = DenseLayerCache()

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Attend to decoded chunks, the window and the new tokens; then pack what leaves it."""
        keys, values = self.recent.append(keys, values)
        seen_keys = torch.cat([*(key.decode() for key, _ in self.chunks), keys], dim=2)
        seen_values = torch.cat([*(value.decode() for _, value in self.chunks), values], dim=2)
        self._pack()
        return seen_keys, seen_values

    def _pack(self) -> None:
        size, codec = self.codec.group_size, self.codec
        keys, values = self.recent.keys, self.recent.values
        while keys.shape[2] >= codec.window + size:
            old = keys[:, :, :size], values[:, :, :size]
            encoded = (
                _Chunk.encode(old[0], codec.key_bits, 2),
                _Chunk.encode(old[1], codec.value_bits, 3),
            )
            self.chunks.append(encoded)
            keys, values = keys[:, :, size:].clone(), values[:, :, size:].clone()
        self.recent.keys, self.recent.values = keys, values

    def crop(self, length: int) -> None:
        """Cut off the end; a chunk that is cut comes back into the window, as it decodes."""
        size = self.codec.group_size
        while self.chunks and len(self.chunks) * size > length:
            keys, values = (chunk.decode() for chunk in self.chunks.pop())
            self.recent.keys = torch.cat([keys, self.recent.keys], dim=2)
            self.recent.values = torch.cat([values, self.recent.values], dim=2)
        self.recent.crop(length - len(self.chunks) * size)

    @property
    def croppable(self) -> int:
        """Fewer than would make the next chunk leave the window."""
        return self.codec.window + self.codec.group_size - self.recent.length - 1

    def tensors(self) -> Iterator[Tensor]:
        """Codes, scales, offsets and the window."""
        for pair in self.chunks:
            for chunk in pair:
                yield from chunk.tensors()
        yield from self.recent.tensors()

    @property
    def length(self) -> int:
        """Tokens held."""
        return len(self.chunks) * self.codec.group_size + self.recent.length
