"""Integer codes of keys and values as the operations for a GPU take them, asked where they lie.

What is held is what `IntegerLayerCache` holds, number by number and byte by byte, in words. One new
token a text is answered by one operation over the codes and by the exact window, joined by their
sums of exponentials; several at a time, and queries in 32 bits, meet decoded states.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from backend.caches.attention import Queries, attend, scores
from backend.caches.chunked import ChunkedLayerCache
from backend.caches.codecs import IntegerCodec
from kernels import kv


class _Words:
    """Words, scales and offsets [heads of all texts, ...] of whole chunks."""

    def __init__(self, bits: int, group: int, chunk: int) -> None:
        self.bits, self.group, self.chunk = bits, group, chunk
        self.parts: tuple[Tensor, Tensor, Tensor] | None = None

    def extend(self, states: Tensor) -> None:
        """Quantise further chunks [batch, heads, chunks, tokens, channels] behind the others."""
        flat = states.flatten(2, 3).flatten(0, 1).contiguous()
        new = kv.quantise(flat, self.bits, self.group)
        held = self.parts
        pairs = zip(held, new, strict=True) if held else ()
        self.parts = tuple(torch.cat(pair, dim=1) for pair in pairs) if held else new

    def decode(self, like: Tensor) -> Tensor:
        """All states, [batch, heads, tokens, channels], in the type of some of that batch."""
        found = kv.dequantise(*self.parts, self.bits, self.group, like)
        return found.view(*like.shape[:2], -1, like.shape[3])

    def keep(self, chunks: int) -> None:
        """Forget all but the first chunks."""
        words, *shared = self.parts
        tokens = chunks * self.chunk
        rows = chunks if self.group else tokens
        self.parts = words[:, :tokens].clone(), *(one[:, :rows].clone() for one in shared)


class SlottedLayerCache(ChunkedLayerCache):
    """Whole chunks of quantised tokens in words, and an exact window behind them."""

    attends = True

    def __init__(self, codec: IntegerCodec) -> None:
        chunk = codec.group_size
        super().__init__(chunk, codec.window)
        self.keys = _Words(codec.key_bits, chunk if codec.keys_by_channel else 0, chunk)
        self.values = _Words(codec.value_bits, 0, chunk)

    def attend(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        """Take in new tokens; returns what their queries find; then hold what leaves the window."""
        alone = queries.count == 1 and queries.among is None and queries.softcap is None
        if self.chunks and alone and queries.states.element_size() == 2:
            found = self._join(queries, *self.recent.append(keys, values))
        else:
            found = attend(queries, *self._take(keys, values))
        self._settle()
        return found

    def _join(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        asked = queries.states.squeeze(2).contiguous()
        about = self.chunks * self.chunk, self.keys.bits, self.values.bits, self.keys.group
        far, far_sum = kv.attention(
            asked, *self.keys.parts, *self.values.parts, *about, queries.scale
        )
        near = scores(queries, keys).squeeze(3)  # [batch, heads, group, tokens]
        near_sum = near.logsumexp(-1).flatten(1)
        mixed = (near.softmax(-1) @ values.float()).flatten(1, 2)
        whole = torch.logaddexp(far_sum, near_sum)
        shares = (
            part.unsqueeze(-1) for part in ((far_sum - whole).exp(), (near_sum - whole).exp())
        )
        old, new = (part.float() * share for part, share in zip((far, mixed), shares, strict=True))
        return (old + new).to(queries.states.dtype).unsqueeze(2)

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        self.keys.extend(keys)
        self.values.extend(values)

    def _decode(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        like = self.recent.keys.to(dtype)
        return self.keys.decode(like), self.values.decode(like)

    def _keep(self, chunks: int) -> None:
        self.keys.keep(chunks)
        self.values.keep(chunks)

    def _held(self) -> Iterator[Tensor]:
        yield from self.keys.parts or ()
        yield from self.values.parts or ()
