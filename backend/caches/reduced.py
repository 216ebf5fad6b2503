"""Keys and values as few numbers along a layer's strongest directions (CSKV, arXiv 2409.10593).

The key of a token is what a matrix made of its hidden state before positions were turned in, and
lies, all heads together, near a space of few dimensions. Only its place in that space is kept,
as if the matrix were a product of two thin ones; the newest tokens are kept as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from backend.caches.chunked import UnturnedLayerCache
from backend.caches.packed import Packed, behind
from backend.caches.reduced_codec import DENSE, ReducedCodec


class _Along:
    """What lies along directions [channels, rank], of whole chunks.

    Args:
        directions: bfloat16.
        bits: of a number; 16 for bfloat16.
        over: dimension that shares a code's scale: 3 for tokens, 4 for directions.
    """

    def __init__(self, directions: Tensor, bits: int, over: int) -> None:
        self.directions = directions
        self.codes = None if bits == DENSE else Packed(bits, over)
        self.plain: Tensor | None = None

    def extend(self, states: Tensor, chunk: int) -> None:
        """Hold further tokens [batch, heads, tokens, head_dim] behind the others."""
        rows = states.transpose(1, 2).flatten(2).float() @ self.directions.float()
        chunks = rows.unflatten(1, (-1, chunk)).unsqueeze(1)  # one head of few channels
        if self.codes is not None:
            self.codes.extend(chunks)
        else:
            self.plain = behind(self.plain, chunks.to(torch.bfloat16))

    def decode(self, heads: int) -> Tensor:
        """States [batch, heads, tokens, head_dim] in float32, as near as the directions come."""
        if self.codes is not None:
            rows = self.codes.chunks(self.directions.shape[1])
        else:
            rows = self.plain.float()
        states = rows[:, 0].flatten(1, 2) @ self.directions.float().T
        return states.unflatten(2, (heads, -1)).transpose(1, 2)

    def keep(self, chunks: int) -> None:
        """Forget all but the first chunks."""
        if self.codes is not None:
            self.codes.keep(chunks)
        else:
            self.plain = self.plain[:, :, :chunks].clone()

    def tensors(self) -> Iterator[Tensor]:
        """All that is kept, the directions too."""
        yield self.directions
        if self.codes is not None:
            yield from self.codes.tensors()
        elif self.plain is not None:
            yield self.plain


class ReducedLayerCache(UnturnedLayerCache):
    """Chunks along few directions and an exact window behind them."""

    def __init__(self, codec: ReducedCodec, index: int) -> None:
        super().__init__(codec.chunk, codec.window)
        self.codec, self.index = codec, index
        self.keys: _Along | None = None
        self.values: _Along | None = None

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        if self.keys is None:
            bits = self.codec.held_bits
            directions = [
                self.codec.table(self.index, name).to(keys.device) for name in ("keys", "values")
            ]
            self.keys, self.values = _Along(directions[0], bits, 3), _Along(directions[1], bits, 4)
        start = self.chunks * self.chunk
        self.keys.extend(self._turned(keys.flatten(2, 3).float(), start, -1), self.chunk)
        self.values.extend(values.flatten(2, 3), self.chunk)

    def _decode(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        heads = self.recent.keys.shape[1]
        keys = self._turned(self.keys.decode(heads), 0, 1)
        return keys.to(dtype), self.values.decode(heads).to(dtype)

    def _keep(self, chunks: int) -> None:
        self.keys.keep(chunks)
        self.values.keep(chunks)

    def _held(self) -> Iterator[Tensor]:
        if self.keys is not None:
            yield from self.keys.tensors()
            yield from self.values.tensors()
