"""SqueezeLLM: each row's own table of values, set where the loss is sensitive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.later import torch
from backend.methods.base import LayerMethod, Needs, Outline, Stage, setting
from backend.methods.quantise import _apart, _clusters, _grid

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format


@dataclass(frozen=True)
class Squeezellm(LayerMethod):
    """Give each row its own table of values, placed where the loss bends most, and keep outliers.

    The values of a row's weights are clustered by k-means, each weight counting as much as the
    diagonal of the loss's Fisher information says. The largest weights, and a few of the most
    sensitive, are taken out beforehand and kept in 16 bits in a sparse part. A budget between
    two table sizes gives the rows that would lose most the larger tables.
    """

    stage = Stage.QUANTISE
    needs = Needs.GRADIENTS | Needs.NORMS
    paper = "arXiv 2306.07629"
    pace = 0.48
    claim = "At 3 bits the gap in perplexity shrinks up to 2.1 times; 2.3x faster than 16-bit."
    limits = (
        "Tables cost 16 * 2^b / columns bits a weight, much in narrow matrices. One whose rows "
        "would hold under four outliers each goes without."
    )
    yields = ("sum", "rows", "scalar-codebook")

    bits: float = setting(
        4.25, "Bits per weight, tables and the sparse part counted.", low=1.1, high=5.0
    )
    outliers: float = setting(
        0.004, "Share of the weights, the largest, kept apart.", low=0.0, high=0.05
    )
    sensitive: float = setting(
        0.0005, "Share of the weights, the most sensitive, kept apart.", low=0.0, high=0.05
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Codes and tables of both sizes, a bit a row where there are two, and what is apart."""
        apart = _apart.count(rows, columns, self.outliers + self.sensitive)
        found, costs = self.widths(rows, columns, apart)
        beside = _apart.bits(rows, apart) // 8
        return Outline(_grid.split_bytes(rows, costs, *found) + beside)

    def widths(
        self, rows: int, columns: int, apart: int
    ) -> tuple[tuple[int, int, int], dict[int, int]]:
        """Finer and coarser width, how many rows are finer, and bits of a row at each width.

        Raises:
            OutOfReachError: tables of two values take more than the budget.
        """
        costs = {w: _grid.code_bits(columns, w) + (16 << w) for w in _grid.WIDTHS}
        budget = self.bits * rows * columns - _apart.bits(rows, apart)
        found = _grid.split(rows, budget, costs)
        if found is None:
            least = costs[1] + -(-_apart.bits(rows, apart) // rows)
            raise _grid.too_little(rows, columns, self.bits, least, "with a table a row")
        return found, costs

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Cluster each row of a weight [rows, columns]."""
        rows, columns = weight.shape
        sensitivity = statistics.sensitivity(rows)
        apart = _apart.count(rows, columns, self.outliers + self.sensitive)
        (fine, coarse, fine_rows), _ = self.widths(rows, columns, apart)
        outside = self._outside(weight, sensitivity, apart)
        counted = sensitivity.masked_fill(outside, 0.0)
        inside = torch.where(outside, weight.masked_fill(outside, 0.0).mean(1, True), weight)
        base, errors = _tables(inside, counted, coarse)
        if fine > coarse and fine_rows:
            mask = torch.zeros(rows, dtype=torch.bool, device=weight.device)
            mask[errors.topk(fine_rows).indices] = True
            wide, _ = _tables(inside[mask], counted[mask], fine)
            narrow = formats.ScalarCodebook.pack(base.codes.get()[~mask], base.tables[~mask])
            return _apart.beside(formats.Rows.pack(mask, wide, narrow), weight, outside)
        return _apart.beside(base, weight, outside)

    def _outside(self, weight: Tensor, sensitivity: Tensor, apart: int) -> Tensor:
        """True for what is kept apart: the largest, and of the others the most sensitive."""
        share = self.outliers + self.sensitive
        large = int(apart * self.outliers / share) if share else 0
        mask = _apart.largest(weight.abs(), large)
        return mask | _apart.largest(sensitivity.masked_fill(mask, -1.0), apart - large)


def _tables(
    weight: Tensor, sensitivity: Tensor, width: int
) -> tuple[formats.ScalarCodebook, Tensor]:
    """Rows in tables of 2**width values, and what each row loses by it [rows]."""
    table = _clusters.tables(weight, sensitivity, 1 << width).to(torch.bfloat16)
    table = table.to(torch.float32).sort(dim=1).values
    held = formats.ScalarCodebook.pack(_clusters.codes(weight, table), table)
    return held, (sensitivity * (held.dense() - weight).square()).sum(1)
