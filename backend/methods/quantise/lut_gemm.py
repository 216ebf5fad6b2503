"""LUT-GEMM: weights as sums of signs, multiplied by looking up partial sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.later import torch
from backend.methods.base import LayerMethod, Needs, Outline, Stage, setting
from backend.methods.quantise import _grid

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

WIDTHS = (1, 2, 3, 4, 5)
ROUNDS = 12
CHUNK = 1 << 22  # weights that are treated at a time


@dataclass(frozen=True)
class LutGemm(LayerMethod):
    """Hold each group of weights as a sum of a few sign patterns, each with a scale of its own.

    Signs and scales are found in turns: with the signs fixed, scales and an offset follow by least
    squares; with these fixed, each weight takes the nearest of the sums. An error counts as much as
    the mean square of its input. A product adds up eight activations at a time in each of the 256
    ways to give them signs, and then only looks up: nothing is made dense. A budget between two
    numbers of patterns gives the rows that lose most one more.
    """

    stage = Stage.QUANTISE
    needs = Needs.NORMS
    pace = 4.0
    paper = "arXiv 2206.09557"
    claim = "2.1x over the kernels of GPTQ at 3 bits, a single token at a time."
    limits = "Every pattern costs 16 bits a group more, too much for thin factors."
    yields = ("binary-codes", "rows")

    bits: float = setting(4.25, "Bits per weight, scales and offsets counted.", low=1.15, high=5.25)
    group_size: int = setting(
        128, "Weights that share scales; 0 for a whole row.", choices=(0, 32, 64, 128, 256)
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Signs, scales and offsets of both numbers of patterns, and a bit a row for two."""
        found, costs = self.widths(rows, columns)
        return Outline(_grid.split_bytes(rows, costs, *found))

    def widths(self, rows: int, columns: int) -> tuple[tuple[int, int, int], dict[int, int]]:
        """Patterns of the finer and coarser rows, how many are finer, and bits of a row with each.

        Raises:
            OutOfReachError: one pattern takes more than the budget.
        """
        size = self._size(columns)
        groups = -(-columns // size)
        signs = 8 * -(-columns // 8)
        costs = {width: width * signs + 16 * (width + 1) * groups for width in WIDTHS}
        found = _grid.split(rows, self.bits * rows * columns, costs)
        if found is None:
            raise _grid.too_little(rows, columns, self.bits, costs[1], f"in groups of {size}")
        return found, costs

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Hold a weight [rows, columns]."""
        (fine, coarse, fine_rows), _ = self.widths(*weight.shape)
        weight = statistics.alive(weight)
        counts, size = statistics.mean_squares, self._size(weight.shape[1])
        held, errors = coded(weight, counts, coarse, size)
        if fine == coarse or not fine_rows:
            return held
        mask = torch.zeros(weight.shape[0], dtype=torch.bool, device=weight.device)
        mask[errors.topk(fine_rows).indices] = True
        wide, _ = coded(weight[mask], counts, fine, size)
        narrow, _ = coded(weight[~mask], counts, coarse, size)
        return formats.Rows.pack(mask, wide, narrow)

    def _size(self, columns: int) -> int:
        return min(self.group_size or columns, columns)


def coded(
    weight: Tensor, counts: Tensor, planes: int, group_size: int
) -> tuple[formats.BinaryCodes, Tensor]:
    """A weight [rows, columns] as sums of `planes` sign patterns, and what each row loses [rows].

    Args:
        weight: what is held.
        counts: how much an error counts in each column, [columns].
        planes: patterns of a group.
        group_size: weights that share scales.
    """
    columns = weight.shape[1]
    short = -columns % group_size
    counts = counts + 1e-6 * counts.mean() + 1e-30
    counts = torch.nn.functional.pad(counts, (0, short)).view(-1, group_size)
    parts = [
        alternate(_grid.grouped(part, group_size), counts, planes)
        for part in weight.split(max(1, CHUNK // columns))
    ]
    signs = torch.cat([part[0] for part in parts], dim=1)
    worth = torch.cat([part[1] for part in parts])
    losses = torch.cat([part[2] for part in parts])
    positive = signs.flatten(-2)[..., :columns] > 0
    worth = worth.movedim(-1, 0)
    return formats.BinaryCodes.pack(positive, worth[:-1], worth[-1], group_size), losses


def alternate(groups: Tensor, counts: Tensor, planes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Signs [planes, rows, groups, size], their worth [rows, groups, planes + 1], losses [rows].

    From two starts, of which each group keeps the better: a greedy sum, each pattern the signs of
    what those before leave, and evenly spaced sums, which rounding to nearest would take. What
    they are worth, rounded to 16 bits, chooses the signs once more.
    """
    ways = _ways(planes).to(groups.device)
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for start in (_greedy(groups, counts, planes), _even(groups, planes)):
        worth = start
        for _ in range(ROUNDS):
            worth = _least_squares(_nearest(groups, worth, ways)[0], groups, counts)
        worth = _grid.in_16_bits(worth)
        signs, values = _nearest(groups, worth, ways)
        losses = ((values - groups).square() * counts).sum(-1)
        if best is None:
            best = signs, worth, losses
            continue
        better = losses < best[2]
        best = (
            torch.where(better.unsqueeze(-1), signs, best[0]),
            torch.where(better.unsqueeze(-1), worth, best[1]),
            torch.where(better, losses, best[2]),
        )
    assert best is not None, "there are two starts"
    return best[0], best[1], best[2].sum(-1)


def _greedy(groups: Tensor, counts: Tensor, planes: int) -> Tensor:
    total = counts.sum(-1)
    offset = (groups * counts).sum(-1) / total
    left, scales = groups - offset.unsqueeze(-1), []
    for _ in range(planes):
        scales.append((left.abs() * counts).sum(-1) / total)
        left = left.abs() - scales[-1].unsqueeze(-1)  # as with the signs of what is left
    return torch.stack([*scales, offset], dim=-1)


def _even(groups: Tensor, planes: int) -> Tensor:
    low, high = groups.amin(-1), groups.amax(-1)
    step = (high - low) / ((1 << planes) - 1)
    scales = [step * (1 << place) / 2 for place in range(planes)]
    return torch.stack([*scales, (low + high) / 2], dim=-1)


def _least_squares(signs: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """Scales and offset of each group that lose least with these signs."""
    design = torch.cat([signs, torch.ones_like(signs[:1])]).movedim(0, -1)
    weighed = (design * counts.unsqueeze(-1)).mT
    normal = weighed @ design
    ridge = 1e-6 * normal.diagonal(dim1=-2, dim2=-1).mean(-1)
    normal = normal + ridge[..., None, None] * torch.eye(design.shape[-1], device=design.device)
    return torch.linalg.solve(normal, weighed @ groups.unsqueeze(-1)).squeeze(-1)


def _nearest(groups: Tensor, worth: Tensor, ways: Tensor) -> tuple[Tensor, Tensor]:
    """Signs [planes, rows, groups, size] of the sum nearest to each weight, and those sums."""
    sums = worth[..., :-1] @ ways + worth[..., -1:]
    sums, order = sums.sort(dim=-1)
    edges = ((sums[..., 1:] + sums[..., :-1]) / 2).contiguous()
    places = torch.searchsorted(edges, groups.contiguous())
    return ways[:, order.gather(-1, places)], sums.gather(-1, places)


def _ways(planes: int) -> Tensor:
    """Every way to choose a sign for each pattern, [planes, 2**planes]."""
    codes = torch.arange(1 << planes) >> torch.arange(planes).unsqueeze(1) & 1
    return (2 * codes - 1).to(torch.float32)
