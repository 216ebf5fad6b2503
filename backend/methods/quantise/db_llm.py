"""DB-LLM: two bits a weight as two sets of zeros and ones, each with a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.later import torch
from backend.methods import _surgeon
from backend.methods.base import LayerMethod, Needs, Outline, Stage, setting
from backend.methods.quantise import _descent, _grid, _group_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

ROUNDS = 10
DIGITS = ((0, 0), (1, 0), (0, 1), (1, 1))


@dataclass(frozen=True)
class DbLlm(LayerMethod):
    """Split weights of two bits into two binary sets whose scales are free of each other.

    A weight is a * b + c * d, with b and d zero or one, so that a group has the four values 0, a, c
    and a + c. From a = 2s and c = -s, the grid of two-bit integers, scales and digits are set in
    turns. Then columns take their digits one after another, each error mended by those after it,
    and at last all scales together take the values with which the outputs change least. Both
    sets are mostly zeros. A budget between two group sizes gives the rows that lose most the
    smaller groups.
    """

    stage = Stage.QUANTISE
    needs = Needs.HESSIAN
    pace = 7.0
    paper = "arXiv 2402.11960"
    claim = "At 2 bits perplexity falls from 9.64 to 7.23 on a model of 7B."
    limits = (
        "Scales and digits are set layer by layer; the paper's distillation from the dense model, "
        "weighed by how unsure both are, is left out."
    )
    accepts = ("dense", "low-rank")
    yields = ("sum", "rows")

    bits: float = setting(3.0, "Bits per weight, scales counted.", low=2.02, high=3.0)
    steps: int = setting(12, "Steps of descent for all scales together.", low=0, high=100)
    damping: float = setting(
        0.01, "Share of the mean diagonal added to the Hessian.", low=1e-4, high=1.0
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Both sets with their scales, and a bit a row where there are two sizes of group."""
        found, costs = self.sizes(rows, columns)
        return Outline(_grid.split_bytes(rows, costs, *found))

    def sizes(self, rows: int, columns: int) -> tuple[_group_sizes.Split, dict[int, int]]:
        """How rows are split between two sizes of group, and bits of a row by size.

        Raises:
            OutOfReachError: one group a row takes more than the budget.
        """
        digits = 2 * 8 * -(-columns // 8)
        cost = lambda groups: digits + 32 * groups  # noqa: E731
        return _group_sizes.split(rows, columns, self.bits, cost, "in two sets of digits")

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Hold a weight [rows, columns] against the Hessian of its inputs."""
        (fine, coarse, fine_rows), _ = self.sizes(*weight.shape)
        weight = statistics.alive(weight)
        hessian = statistics.damped(self.damping)
        steps = _descent.feasible(hessian, self.steps)

        def part(rows: Tensor, place: int) -> _Sets:
            sets = _Sets(rows, statistics.mean_squares, _group_sizes.GROUPS[place] or rows.shape[1])
            _surgeon.sweep(
                _surgeon.columns_of(rows), statistics.inverse_factor(self.damping), sets.round
            )
            sets.settle(rows, hessian, steps)
            return sets

        base = part(weight, coarse)
        if fine == coarse or not fine_rows:
            return base.held(slice(None))
        mask = torch.zeros(weight.shape[0], dtype=torch.bool, device=weight.device)
        mask[_descent.loss(weight, base.dense(), hessian).topk(fine_rows).indices] = True
        wide = part(weight[mask], fine)
        return formats.Rows.pack(mask, wide.held(slice(None)), base.held(~mask))


class _Sets:
    """Digits and scales of some rows on their way through the sweep."""

    def __init__(self, weight: Tensor, counts: Tensor, group_size: int) -> None:
        """Set the scales of groups of a weight [rows, columns]; errors count as their inputs do."""
        self._size, self._columns = group_size, weight.shape[1]
        short = -self._columns % group_size
        groups = torch.nn.functional.pad(weight, (0, short)).unflatten(1, (-1, group_size))
        counts = counts + 1e-6 * counts.mean() + 1e-30
        counts = torch.nn.functional.pad(counts, (0, short)).view(-1, group_size)
        self.scales = started(groups, counts)
        self.digits = torch.zeros(2, *weight.shape, device=weight.device)

    def round(self, index: int, values: Tensor) -> Tensor:
        """The nearest of a group's four values to those [rows] of a column."""
        scales = self.scales[:, index // self._size]
        digits, found = nearest(values.unsqueeze(1), scales)
        self.digits[:, :, index] = digits[..., 0]
        return found.squeeze(1)

    def dense(self) -> Tensor:
        """What is held, [rows, columns]."""
        return self._spread(self.scales.flatten(1))

    def settle(self, weight: Tensor, hessian: Tensor, steps: int) -> None:
        """Scales of least change of the outputs with these digits, all groups together."""
        counts = hessian.diagonal()
        free = _descent.settle(
            weight,
            self.scales.flatten(1),
            hessian,
            self._spread,
            self._gather,
            weights=self._gather_each(self.digits.square() * counts),
            steps=steps,
        )
        self.scales = free.view(self.scales.shape)

    def held(self, rows: Tensor | slice) -> Format:
        """Some of the rows: one bit a digit, zero as the code that stands for it."""
        parts = (
            formats.IntegerGroups.pack(
                1 - self.digits[place][rows],
                -self.scales[rows][..., place],  # code 0 is the middle less one
                bits=1,
                group_size=self._size,
            )
            for place in range(2)
        )
        return formats.Sum.of(**dict(zip(("first", "second"), parts, strict=True)))

    def _spread(self, free: Tensor) -> Tensor:
        scales = free.view(len(free), -1, 2).movedim(2, 0)
        spread = scales.repeat_interleave(self._size, 2)[..., : self._columns]
        return (self.digits * spread).sum(0)

    def _gather(self, rows: Tensor) -> Tensor:
        return self._gather_each(self.digits * rows)

    def _gather_each(self, parts: Tensor) -> Tensor:
        """Sums over groups of two matrices [2, rows, columns], as free numbers lie."""
        short = -self._columns % self._size
        padded = torch.nn.functional.pad(parts, (0, short)).unflatten(2, (-1, self._size))
        return padded.sum(-1).movedim(0, 2).flatten(1)


def started(groups: Tensor, counts: Tensor) -> Tensor:
    """Both scales [rows, groups, 2] for groups [rows, groups, size], in 16 bits.

    From the two-bit grid -s, 0, s, 2s and from its mirror image, with s a share of the largest
    weight, and from both ends of the group: digits and scales in turns, of which each group keeps
    what loses least.

    Args:
        groups: the weights.
        counts: how much an error counts, [groups, size].
    """
    largest = groups.abs().amax(-1).clamp(min=_grid.TINY)
    best = torch.stack([torch.zeros_like(largest)] * 2, dim=-1)
    least = torch.full_like(largest, torch.inf)
    starts = [(largest * share, -0.5 * largest * share) for share in (0.5, 0.8, -0.5, -0.8)]
    for pair in (*starts, (groups.amax(-1), groups.amin(-1))):
        scales = torch.stack(pair, dim=-1)
        for _ in range(ROUNDS):
            held = _grid.in_16_bits(scales)
            digits, found = nearest(groups, held)
            lost = ((found - groups).square() * counts).sum(-1)
            better = lost < least
            best = torch.where(better.unsqueeze(-1), held, best)
            least = torch.where(better, lost, least)
            scales = _solved(digits, groups, counts, held)
    return best


def nearest(values: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Digits [2, ..., size] of the nearest of four values to each of [..., size], and those.

    Args:
        values: any numbers.
        scales: of both sets, [..., 2].
    """
    ways = torch.tensor(DIGITS, dtype=values.dtype, device=values.device)
    points = scales @ ways.T  # [..., 4]
    # One of the four after another: all differences at once are four times the weight.
    place = torch.zeros(values.shape, dtype=torch.int64, device=values.device)
    least = (values - points[..., :1]).abs()
    for way in range(1, len(DIGITS)):
        away = (values - points[..., way : way + 1]).abs()
        nearer = away < least
        place.masked_fill_(nearer, way)
        least = torch.where(nearer, away, least)
    return ways[place].movedim(-1, 0), points.gather(-1, place)


def _solved(digits: Tensor, groups: Tensor, counts: Tensor, held: Tensor) -> Tensor:
    """Scales of least weighed squares with these digits; those held where a set is all zeros."""
    first, second = digits
    aa, ab, bb = (
        (counts * one * other).sum(-1)
        for one, other in ((first, first), (first, second), (second, second))
    )
    ridge = 1e-6 * counts.sum(-1)
    aa, bb = aa + ridge, bb + ridge
    wanted = [
        (counts * one * groups).sum(-1) + ridge * held[..., place]
        for place, one in enumerate((first, second))
    ]
    determinant = aa * bb - ab * ab
    return torch.stack(
        [
            (bb * wanted[0] - ab * wanted[1]) / determinant,
            (aa * wanted[1] - ab * wanted[0]) / determinant,
        ],
        dim=-1,
    )
