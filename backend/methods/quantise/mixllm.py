"""MixLLM: eight bits for the outputs that matter most over the whole model, four for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.later import torch
from backend.methods.base import Needs, Outline, RankingMethod, Stage, setting
from backend.methods.quantise import _grid
from backend.methods.quantise.gptq import swept

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

FINE, COARSE = 8, 4


@dataclass(frozen=True)
class Mixllm(RankingMethod):
    """Hold the output features that matter most in eight bits and all others in four.

    A feature matters as much as the loss of the whole model moves when its row is rounded to four
    bits, by the first two terms of Taylor's series with the gradients of calibration text. All
    rows of all layers stand in one order, so that a layer that matters gets many of the wide codes
    and another none. Both kinds are rounded with GPTQ's error feedback, in groups along the row:
    four bits with an offset, eight around zero. Where only one matrix is in sight, as for an
    allocator's levels, its own rounding errors give the order.
    """

    stage = Stage.QUANTISE
    needs = Needs.HESSIAN
    paper = "arXiv 2412.14590"
    claim = "A tenth more bits bring the rise of perplexity from 0.5 down to within 0.2."
    limits = (
        "Activations stay as they are; the paper's kernels hold them in eight bits. One matrix may "
        "take more than the budget says and another less: together they keep it."
    )
    yields = ("rows", "integer-groups")

    bits: float = setting(
        5.25, "Bits per weight over all matrices, scales and offsets counted.", low=4.05, high=9.0
    )
    group_size: int = setting(
        128, "Weights that share a scale; 0 for a whole row.", choices=(0, 32, 64, 128, 256)
    )
    damping: float = setting(
        0.01, "Share of the mean diagonal added to the Hessian.", low=1e-4, high=1.0
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """At most the budget, on the mean of all matrices: which has how much is not known yet."""
        self._check(rows, columns)
        return super().outline(rows, columns)

    def change(self, weight: Tensor) -> Tensor:
        """What rounding all rows of a weight [rows, columns] to four bits changes."""
        size = self._size(weight.shape[1])
        return _grid.rounding_error(weight, COARSE, size, symmetric=False)

    def fine_rows(
        self, salience: Mapping[str, Tensor], columns: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """The rows with the highest salience of all, as many as the budget holds.

        Raises:
            OutOfReachError: a matrix takes more than its share even in four bits.
        """
        spare, steps = 0.0, []
        for name, one in salience.items():
            rows = len(one)
            narrow, wide = self._check(rows, columns[name])
            spare += self.bits * rows * columns[name] - rows * narrow - 8 * -(-rows // 8)
            step = float(wide - narrow)
            steps.append(torch.full((rows,), step, dtype=torch.float64, device=one.device))
        order = torch.cat(list(salience.values())).argsort(descending=True, stable=True)
        spent = torch.cat(steps)[order].cumsum(0)
        chosen = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        chosen[order[spent <= spare + 1e-6]] = True
        parts = chosen.split([len(one) for one in salience.values()])
        return dict(zip(salience, parts, strict=True))

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Round a weight [rows, columns] against the Hessian of its inputs."""
        mask = statistics.fine_rows
        if mask is None:
            lost = self.change(statistics.alive(weight)).square() @ statistics.mean_squares
            mask = self.fine_rows({"": lost}, {"": weight.shape[1]})[""]
        parts = [
            self._rounded(weight[rows], statistics, width)
            for rows, width in ((mask, FINE), (~mask, COARSE))
            if bool(rows.any())
        ]
        return parts[0] if len(parts) == 1 else formats.Rows.pack(mask, *parts)

    def _rounded(self, weight: Tensor, statistics: InputStatistics, width: int) -> Format:
        size = self._size(weight.shape[1])
        plan = _grid.Plan(width, width, 0, size, symmetric=width == FINE)
        return swept(weight, statistics, plan, self.damping)

    def _check(self, rows: int, columns: int) -> tuple[int, int]:
        """Bits that a row takes in four and in eight bits.

        Raises:
            OutOfReachError: four-bit rows take more than the budget.
        """
        size = self._size(columns)
        narrow = _grid.width_bits(columns, COARSE, size, symmetric=False)
        if narrow > self.bits * columns + 1e-6:
            raise _grid.too_little(rows, columns, self.bits, narrow, f"in groups of {size}")
        return narrow, _grid.width_bits(columns, FINE, size, symmetric=True)

    def _size(self, columns: int) -> int:
        return min(self.group_size or columns, columns)
