"""Keys quantised by channel, values by token, the newest tokens exact (KIVI, arXiv 2402.02750).

A key channel's scale and offset span a chunk; a value's span a token's channels of one head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.caches.base import Codec
from backend.caches.chunked import ChunkedLayerCache
from backend.caches.packed import Packed, code_bits


@dataclass(frozen=True)
class IntegerCodec(Codec):
    """Code bits of keys and values, tokens in a chunk, and tokens kept exact."""

    key_bits: int
    value_bits: int
    group_size: int
    window: int
    keys_by_channel: bool = True

    def layer(self, index: int) -> IntegerLayerCache:  # noqa: ARG002 - all layers alike
        """An empty cache."""
        return IntegerLayerCache(self)

    def bits(self, heads: int, head_dim: int) -> float:  # noqa: ARG002 - a scale for each head
        """Codes, scales and offsets; the exact window is a fixed cost on top."""
        shared = self.group_size if self.keys_by_channel else head_dim
        keys = code_bits(self.key_bits, head_dim) + 32 / shared
        values = code_bits(self.value_bits, head_dim) + 32 / head_dim
        return (keys + values) / 2


class IntegerLayerCache(ChunkedLayerCache):
    """Whole chunks of quantised tokens and an exact window behind them."""

    def __init__(self, codec: IntegerCodec) -> None:
        super().__init__(codec.group_size, codec.window)
        self.keys = Packed(codec.key_bits, over=3 if codec.keys_by_channel else 4)
        self.values = Packed(codec.value_bits, over=4)

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        self.keys.extend(keys)
        self.values.extend(values)

    def _decode(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        channels = self.recent.keys.shape[3]
        return self.keys.decode(channels, dtype), self.values.decode(channels, dtype)

    def _keep(self, chunks: int) -> None:
        self.keys.keep(chunks)
        self.values.keep(chunks)

    def _held(self) -> Iterator[Tensor]:
        yield from self.keys.tensors()
        yield from self.values.tensors()
