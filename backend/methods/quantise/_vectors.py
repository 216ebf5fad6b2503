"""Codebooks of short vectors: weighted k-means, nearest entries, and what indices take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.later import torch

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 15
SAMPLE = 1 << 16  # vectors that codebooks are made from
INDICES = (1, 2, 4, 8)  # bits that fill a byte evenly
ZADOR = {1: 2.721, 2: 2.016, 4: 1.624, 8: 1.375}
"""2 pi G ((n + 2) / n)^((n + 2) / 2), with G of the best lattice known of n dimensions."""


@dataclass(frozen=True)
class Level:
    """How vectors are held: their length, and bits of the index into each codebook."""

    length: int
    bits: tuple[int, ...]

    @property
    def rate(self) -> float:
        """Bits of indices a weight."""
        return sum(self.bits) / self.length

    @property
    def codebooks(self) -> int:
        """Bytes of the codebooks, in bfloat16."""
        return sum(2 * self.length << bits for bits in self.bits)

    @property
    def distortion(self) -> float:
        """About what is lost of numbers of variance 1, drawn independently from a normal curve.

        What many entries lose is known (Zador 1982): 2^(-2 rate) times a constant of the length;
        fewer lose less than that. A second codebook loses that share of what the first leaves.
        """
        lost = 1.0
        for bits in self.bits:
            rate = bits / self.length
            lost *= 4**-rate * (1 + (ZADOR[self.length] - 1) * (1 - 2**-rate) ** 2)
        return lost

    def row(self, numbers: int) -> int:
        """Bytes of the indices of so many numbers in a row."""
        return sum(-(-numbers // self.length * bits // 8) for bits in self.bits)


def levels(numbers: int, longest: int) -> list[Level]:
    """Every level at which rows of so many numbers can be held, by rate."""
    lengths = [length for length in (8, 4, 2, 1) if length <= longest and numbers % length == 0]
    found = [Level(length, (bits,)) for length in lengths for bits in INDICES]
    found += [
        Level(length, (bits, fewer))
        for length in lengths
        if length > 1  # of single numbers one larger codebook holds more
        for bits in INDICES
        for fewer in INDICES
        if fewer <= bits
    ]
    return sorted(found, key=lambda one: (one.rate, one.codebooks))


def drawn(columns: Tensor, counts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Vectors [number, length] of columns [number, rows] and how much each counts; all, or a draw.

    Args:
        columns: cut into vectors, one after another.
        counts: how much an error in each column counts, [number].
        length: of a vector; it divides the rows.
    """
    each = columns.shape[1] // length
    total = columns.shape[0] * each
    if total <= SAMPLE:
        return columns.reshape(-1, length), counts.repeat_interleave(each)
    chosen = torch.randint(total, (SAMPLE,), generator=torch.Generator().manual_seed(0))
    chosen = chosen.to(columns.device)
    column, place = chosen // each, chosen % each
    rows = place.unsqueeze(1) * length + torch.arange(length, device=columns.device)
    return columns[column.unsqueeze(1), rows], counts[column]


def codebook(vectors: Tensor, weights: Tensor, count: int) -> Tensor:
    """The vectors [count, length], as bfloat16 holds them, that stand best for many.

    Lloyd's rounds from a start that spreads: each entry drawn by its distance from those before
    (k-means++, Arthur and Vassilvitskii 2007), the draw the same every time.

    Args:
        vectors: [number, length].
        weights: how much an error counts, [number], not negative.
        count: entries.
    """
    draw = torch.Generator().manual_seed(0)
    weights = weights + 1e-6 * weights.mean() + 1e-30
    found = _spread(vectors, weights, count, draw)
    for _ in range(ROUNDS):
        places = nearest(vectors, found)
        total = weights.new_zeros(count).index_add_(0, places, weights)
        sums = torch.zeros_like(found).index_add_(0, places, weights.unsqueeze(1) * vectors)
        filled = (total > 0).unsqueeze(1)
        found = torch.where(filled, sums / total.clamp(min=1e-30).unsqueeze(1), found)
    return found.to(torch.bfloat16).to(torch.float32)


def nearest(vectors: Tensor, entries: Tensor) -> Tensor:
    """The place of the nearest entry [count, length] to each vector [number, length]."""
    norms = entries.square().sum(1)
    parts = vectors.split(max(1, (1 << 22) // entries.shape[0]))
    return torch.cat([torch.addmm(norms, part, entries.T, alpha=-2).argmin(1) for part in parts])


def _spread(vectors: Tensor, weights: Tensor, count: int, draw: torch.Generator) -> Tensor:
    far = torch.full_like(weights, torch.inf)
    chosen = int((weights * vectors.square().sum(1)).argmax())
    entries = [vectors[chosen]]
    while len(entries) < count:
        far = torch.minimum(far, (vectors - entries[-1]).square().sum(1))
        chances = (weights * far).cumsum(0)
        if float(chances[-1]) <= 0:  # every vector is an entry already
            entries.append(entries[0])
            continue
        place = float(torch.rand((), generator=draw)) * float(chances[-1])
        entries.append(vectors[min(int(torch.searchsorted(chances, place)), len(vectors) - 1)])
    return torch.stack(entries)
