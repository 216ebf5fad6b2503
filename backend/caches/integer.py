"""Keys quantised by channel, values by token, the newest tokens exact (KIVI, arXiv 2402.02750).

A key channel's scale and offset span a chunk; a value's span a token's channels of one head.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from backend.caches.base import Coming
from backend.caches.chunked import ChunkedLayerCache
from backend.caches.codecs import IntegerCodec
from backend.caches.packed import Packed
from kernels.rooms import States


class IntegerLayerCache(ChunkedLayerCache):
    """Whole chunks of quantised tokens and an exact window behind them."""

    read_by_step = True

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

    def _states(self, coming: Coming) -> tuple[States, States]:
        return self.keys.read(coming.head_dim), self.values.read(coming.head_dim)

    def _keep(self, chunks: int) -> None:
        self.keys.keep(chunks)
        self.values.keep(chunks)

    def _held(self) -> Iterator[Tensor]:
        yield from self.keys.tensors()
        yield from self.values.tensors()
