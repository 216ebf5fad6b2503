"""LLM-FP4: small floating-point codes whose split and range are searched."""

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

WIDTHS = (2, 3, 4, 5, 6, 8)
CLIPPED = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6)
"""Where the largest code lies, as a share of the largest weight of a group."""


@dataclass(frozen=True)
class LlmFp4(LayerMethod):
    """Hold weights as tiny floating-point numbers whose split each matrix searches for itself.

    A code is a sign, an exponent and a mantissa. More exponent bits reach further, more mantissa
    bits are finer; which is better depends on how heavy the tails are, so every split is tried
    on each matrix, and every group tries how far its largest code should reach. What changes
    least in the outputs, each input counting as much as its mean square, is held.
    """

    stage = Stage.QUANTISE
    needs = Needs.NORMS
    pace = 3.0
    paper = "arXiv 2310.16836"
    claim = "LLaMA-13B with weights and activations of 4 bits within 5.8 points of the whole."
    limits = "Weights alone: activations keep 16 bits, so nothing is shifted into the exponents."
    accepts = ("dense", "low-rank")
    yields = ("float-codes", "rows")

    bits: float = setting(4.125, "Bits per weight, scales counted.", low=2.05, high=8.5)
    group_size: int = setting(
        128, "Weights that share a scale; 0 for a whole row.", choices=(0, 32, 64, 128, 256)
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Codes and scales of both widths, and a bit a row where there are two."""
        found, costs = self.widths(rows, columns)
        return Outline(_grid.split_bytes(rows, costs, *found))

    def widths(self, rows: int, columns: int) -> tuple[tuple[int, int, int], dict[int, int]]:
        """Finer and coarser width, how many rows are finer, and bits of a row at each width.

        Raises:
            OutOfReachError: two-bit codes take more than the budget.
        """
        size = min(self.group_size or columns, columns)
        scales = 16 * -(-columns // size)
        costs = {width: _grid.code_bits(columns, width) + scales for width in WIDTHS}
        found = _grid.split(rows, self.bits * rows * columns, costs)
        if found is None:
            raise _grid.too_little(rows, columns, self.bits, costs[2], f"in groups of {size}")
        return found, costs

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Round a weight [rows, columns]."""
        rows, columns = weight.shape
        size = min(self.group_size or columns, columns)
        (fine, coarse, fine_rows), _ = self.widths(rows, columns)
        weight = statistics.alive(weight)
        counts = statistics.mean_squares
        held, errors = search(weight, counts, coarse, size)
        if fine == coarse or not fine_rows:
            return held
        mask = torch.zeros(rows, dtype=torch.bool, device=weight.device)
        mask[errors.topk(fine_rows).indices] = True
        wide, _ = search(weight[mask], counts, fine, size)
        narrow, _ = search(weight[~mask], counts, coarse, size)
        return formats.Rows.pack(mask, wide, narrow)


def search(
    weight: Tensor, counts: Tensor, width: int, group_size: int
) -> tuple[formats.FloatCodes, Tensor]:
    """The split of codes that changes a weight [rows, columns] least, and each row's loss.

    Args:
        weight: what is held.
        counts: how much an error counts in each column, [columns].
        width: bits of a code.
        group_size: weights that share a scale.
    """
    groups = _grid.grouped(weight, group_size)
    counts = torch.nn.functional.pad(counts, (0, -weight.shape[1] % group_size))
    counts = counts.view(-1, group_size)
    best: tuple[float, formats.FloatCodes, Tensor] | None = None
    for exponent_bits in range(1, min(4, width - 1) + 1):
        mantissa_bits = width - 1 - exponent_bits
        codes, scales, losses = _reach(groups, counts, exponent_bits, mantissa_bits)
        total = float(losses.sum())
        if best is None or total < best[0]:
            held = formats.FloatCodes.pack(
                codes.flatten(1)[:, : weight.shape[1]],
                scales,
                exponent_bits=exponent_bits,
                mantissa_bits=mantissa_bits,
                group_size=group_size,
            )
            best = total, held, losses.sum(1)
    assert best is not None, "codes of two bits have one split"
    return best[1], best[2]


def _reach(
    groups: Tensor, counts: Tensor, exponent_bits: int, mantissa_bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes and scales of groups [rows, groups, size] at each group's best reach, and losses."""
    from backend.formats.floating import values

    table = values(exponent_bits, mantissa_bits).to(groups.device)
    sizes = table[: table.numel() // 2]
    edges = (sizes[1:] + sizes[:-1]) / 2
    largest = groups.abs().amax(-1)
    kept: tuple[Tensor, Tensor, Tensor] | None = None
    for share in CLIPPED:
        scale = _grid.in_16_bits(share * largest).clamp(min=_grid.TINY)
        whole = (groups / scale.unsqueeze(-1)).contiguous()
        codes = torch.bucketize(whole.abs(), edges)
        change = sizes[codes] - whole.abs()
        loss = (change.square() * counts).sum(-1) * scale.square()
        codes = codes + sizes.numel() * (whole < 0)
        if kept is None:
            kept = codes, scale, loss
            continue
        better = loss < kept[2]
        kept = (
            torch.where(better.unsqueeze(-1), codes, kept[0]),
            torch.where(better, scale, kept[1]),
            torch.where(better, loss, kept[2]),
        )
    assert kept is not None, "at least one reach is tried"
    return kept
