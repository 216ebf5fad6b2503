"""Integer keys and values with their error held beside them (GEAR, arXiv 2403.05527).

Of each chunk, the entries furthest from the middle of their channel (keys) or token (values) are
held apart, the rest is rounded, and what rounding lost is held as a product of two thin factors.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from backend.caches.base import Coming
from backend.caches.chunked import ChunkedLayerCache
from backend.caches.codecs import CorrectedCodec
from backend.caches.packed import Packed, behind
from kernels import held_states
from kernels.rooms import States

ITERATIONS = 4


class Corrected:
    """Codes, factors of their error and outliers of whole chunks.

    Args:
        bits: of a code.
        over: dimension that shares a scale: 3 for tokens, 4 for channels.
        rank: of the error.
        apart: outliers of one head's chunk.
    """

    def __init__(self, bits: int, over: int, rank: int, apart: int) -> None:
        self.codes, self.over, self.rank, self.apart = Packed(bits, over), over, rank, apart
        self.left: Tensor | None = None
        self.right: Tensor | None = None
        self.places: Tensor | None = None
        self.values: Tensor | None = None

    def extend(self, states: Tensor) -> None:
        """Hold further chunks [batch, heads, chunks, tokens, channels] behind the others."""
        plain, places = states.float(), None
        if self.apart:
            middle = plain.mean(self.over, keepdim=True)
            away = (plain - middle).abs().flatten(3)
            places = away.topk(self.apart, dim=-1).indices
            outliers = plain.flatten(3).gather(-1, places)
            calm = plain.flatten(3).scatter(
                -1, places, middle.expand_as(plain).flatten(3).gather(-1, places)
            )
            plain = calm.view_as(plain)
            self.places = behind(self.places, places.to(torch.int16))
            self.values = behind(self.values, outliers.to(torch.bfloat16))
        fresh = Packed(self.codes.bits, self.over)
        fresh.extend(plain)
        self.codes.extend(plain)
        if self.rank:
            error = plain - fresh.chunks(plain.shape[-1])
            if places is not None:
                error = error.flatten(3).scatter(-1, places, 0.0).view_as(error)
            left, right = thin_factors(error, self.rank)
            self.left = behind(self.left, left.to(torch.bfloat16).contiguous())
            self.right = behind(self.right, right.to(torch.bfloat16).contiguous())

    def decode(self, channels: int, dtype: torch.dtype) -> Tensor:
        """All states [batch, heads, tokens, channels]."""
        states = self.codes.chunks(channels)
        if self.rank:
            states = states + self.left.float() @ self.right.float()
        if self.apart:
            flat = states.flatten(3)
            # an index beyond 2^15 - 1 wraps round in int16
            places = self.places.to(torch.int64) & 0xFFFF
            states = flat.scatter(-1, places, self.values.float()).view_as(states)
        return states.flatten(2, 3).to(dtype)

    def read(self, channels: int) -> States:
        """How a step reads all states."""
        factors = (self.left, self.right) if self.rank else None
        apart = (self.places, self.values) if self.apart else None
        return held_states.corrected(self.codes.read(channels), factors, apart)

    def keep(self, chunks: int) -> None:
        """Forget all but the first chunks."""
        self.codes.keep(chunks)
        for name in ("left", "right", "places", "values"):
            if (part := getattr(self, name)) is not None:
                setattr(self, name, part[:, :, :chunks].clone())

    def tensors(self) -> Iterator[Tensor]:
        """All that is kept."""
        yield from self.codes.tensors()
        for part in (self.left, self.right, self.places, self.values):
            if part is not None:
                yield part


def thin_factors(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors [..., rows, rank] and [..., rank, columns] whose product is near `matrices`.

    Subspace iteration from a fixed start, as the paper's power iteration, gives nearly the best.
    """
    columns = matrices.shape[-1]
    generator = torch.Generator().manual_seed(0)
    right = torch.randn(columns, rank, generator=generator).to(matrices.device)
    for _ in range(ITERATIONS):
        left = torch.linalg.qr(matrices @ right).Q
        right = matrices.mT @ left
    return left, right.mT


class CorrectedLayerCache(ChunkedLayerCache):
    """Chunks with their corrections, and the streaming buffer of the newest tokens."""

    read_by_step = True

    def __init__(self, codec: CorrectedCodec) -> None:
        super().__init__(codec.chunk, codec.window)
        self.codec = codec
        self.keys: Corrected | None = None
        self.values: Corrected | None = None

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        if self.keys is None:
            head_dim = keys.shape[-1]
            rank, apart = min(self.codec.rank, head_dim), self.codec.apart(head_dim)
            self.keys = Corrected(self.codec.key_bits, 3, rank, apart)
            self.values = Corrected(self.codec.value_bits, 4, rank, apart)
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
        if self.keys is not None:
            yield from self.keys.tensors()
            yield from self.values.tensors()
