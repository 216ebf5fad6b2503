"""Keys and values without their smallest channels, token by token (Mustafar, arXiv 2505.22913).

Kept channels lie behind a bitmap, and attention is computed on that form; the newest tokens are
dense.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from backend.caches.attention import Queries, attend, mix, scores, weights
from backend.caches.base import Coming
from backend.caches.chunked import ChunkedLayerCache
from backend.caches.codecs import BitmapCodec
from backend.caches.packed import behind
from kernels import bitmap_attention, bitpack
from kernels.rooms import States


class _Kept:
    """Channels [batch, heads, tokens, kept] of the largest size, and bitmaps beside them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.values: Tensor | None = None
        self.bitmap: Tensor | None = None

    def extend(self, states: Tensor) -> None:
        """Prune further tokens [batch, heads, tokens, channels] behind the others."""
        bitmap, kept = bitmap_attention.largest(states, self.count) or self._largest(states)
        self.values, self.bitmap = behind(self.values, kept), behind(self.bitmap, bitmap)

    def _largest(self, states: Tensor) -> tuple[Tensor, Tensor]:
        order = states.abs().topk(self.count, dim=-1).indices.sort(-1).values
        marks = torch.zeros(states.shape, dtype=torch.uint8, device=states.device)
        marks.scatter_(-1, order, 1)
        bitmap = bitpack.pack_plane(marks.flatten(0, 2), 1).view(*states.shape[:3], -1)
        kept = states.gather(-1, order)
        return bitmap, kept.to(torch.bfloat16) if kept.element_size() > 2 else kept

    def decode(self, channels: int, dtype: torch.dtype) -> Tensor:
        """Dense states [batch, heads, tokens, channels] with zeros where nothing was kept."""
        index = bitmap_attention.places(self.bitmap, channels, self.count)
        dense = torch.zeros(*index.shape[:3], channels, dtype=dtype, device=index.device)
        return dense.scatter_(-1, index, self.values.to(dtype))

    def read(self, channels: int) -> States:
        """How a step reads all states."""
        return bitmap_attention.read(self.bitmap, self.values, channels)

    def keep(self, tokens: int) -> None:
        """Forget all but the first tokens."""
        self.values = self.values[:, :, :tokens].clone()
        self.bitmap = self.bitmap[:, :, :tokens].clone()

    def tensors(self) -> Iterator[Tensor]:
        """All that is kept."""
        if self.values is not None:
            yield self.values
            yield self.bitmap


class BitmapLayerCache(ChunkedLayerCache):
    """Pruned tokens behind bitmaps and a dense window behind them."""

    attends = True
    read_by_step = True

    def __init__(self, codec: BitmapCodec) -> None:
        super().__init__(codec.chunk, codec.window)
        self.keys, self.values = _Kept(codec.key_channels), _Kept(codec.value_channels)

    def attend(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        """Score and mix pruned tokens as they lie, dense ones as ever."""
        keys, values = self.recent.append(keys, values)
        found = self._ask(queries, keys, values) if self.chunks else attend(queries, keys, values)
        self._settle()
        return found

    def _ask(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        heads, channels = keys.shape[1], keys.shape[3]
        held = self.chunks * self.chunk
        near = scores(queries, keys)
        asked = queries.grouped(heads).float().flatten(2, 3)
        far = bitmap_attention.scores(asked, self.keys.bitmap, self.keys.values)
        found = torch.cat([far.unflatten(2, near.shape[2:4]) * queries.scale, near], dim=-1)
        seen = queries.seen(found.shape[-1] - queries.count)
        shares = weights(found, queries.softcap, seen)
        mixed = mix(shares[..., held:], values)
        part = shares[..., :held].flatten(2, 3)
        old = bitmap_attention.mix(part, self.values.bitmap, self.values.values, channels)
        return (mixed.float() + old.unflatten(2, near.shape[2:4]).flatten(1, 2)).to(mixed.dtype)

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        self.keys.extend(keys.flatten(2, 3))
        self.values.extend(values.flatten(2, 3))

    def _decode(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        channels = self.recent.keys.shape[3]
        return self.keys.decode(channels, dtype), self.values.decode(channels, dtype)

    def _states(self, coming: Coming) -> tuple[States, States]:
        return self.keys.read(coming.head_dim), self.values.read(coming.head_dim)

    def _keep(self, chunks: int) -> None:
        self.keys.keep(chunks * self.chunk)
        self.values.keep(chunks * self.chunk)

    def _held(self) -> Iterator[Tensor]:
        yield from self.keys.tensors()
        yield from self.values.tensors()
