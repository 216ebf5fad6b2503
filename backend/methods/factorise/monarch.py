"""Monarch: a matrix as two block-diagonal ones with a permutation between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.errors import OutOfReachError
from backend.later import torch
from backend.methods.base import Outline, setting
from backend.methods.factorise import _rank

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format


@dataclass(frozen=True)
class Monarch(_rank.Factoriser):
    """Replace each matrix by the nearest Monarch matrix: two block-diagonal factors, permuted.

    Blocks of the first factor read neighbouring inputs; a permutation hands each block of the
    second a few numbers from every one of them. The nearest such matrix has a closed form: seen
    as a grid of blocks, each block is replaced by its own best product of low rank, by a singular
    value decomposition. With as many blocks as the root of the width and rank one this is the
    paper's smallest; fewer blocks and higher ranks fill a budget. No data is looked at.
    """

    paper = "arXiv 2204.00595"
    claim = "Trains ViT and GPT-2 twice as fast at the same quality; projects dense to sparse."
    limits = (
        "The projection of trained matrices alone; training from Monarch factors and fine-tuning "
        "after the projection are left out. Nothing compresses the factors further."
    )
    yields = ("monarch", "dense")

    blocks: int = setting(
        4,
        "Blocks of each factor; the largest number up to this that divides the matrix.",
        low=1,
        high=256,
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Both factors, which no later stage treats."""
        if self.bits >= 16:
            return Outline(leaves=((rows, columns),))
        outputs, inputs, rank = self.plan(rows, columns)
        return Outline(2 * rank * (outputs * columns + inputs * rows))

    def plan(self, rows: int, columns: int) -> tuple[int, int, int]:
        """Blocks of outputs and of inputs, and the rank of each pair, that fit the budget.

        Raises:
            OutOfReachError: rank one takes more.
        """
        outputs, inputs = _divisor(rows, self.blocks), _divisor(columns, self.blocks)
        each = outputs * columns + inputs * rows
        rank = int(self.bits * rows * columns / 16 // each)
        if rank < 1:
            raise OutOfReachError(
                f"Factors in {self.blocks} blocks of a matrix {rows} x {columns} take "
                f"{16 * each / (rows * columns):.2f} bits per number or more, not {self.bits:g}; "
                "fewer blocks reach lower."
            )
        return outputs, inputs, min(rank, rows // outputs, columns // inputs)

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:  # noqa: ARG002
        """Project a weight [rows, columns]."""
        if self.bits >= 16:
            return formats.Dense.pack(weight)
        rows, columns = weight.shape
        outputs, inputs, rank = self.plan(rows, columns)
        grid = weight.reshape(rows // outputs, outputs, inputs, columns // inputs)
        left, values, right = torch.linalg.svd(grid.permute(1, 2, 0, 3), full_matrices=False)
        root = values[..., :rank].sqrt()
        tall = left[..., :rank] * root.unsqueeze(-2)  # [outputs, inputs, rows / outputs, rank]
        wide = right[..., :rank, :] * root.unsqueeze(-1)
        return formats.Monarch.pack(tall.transpose(1, 2), wide.transpose(0, 1))


def _divisor(number: int, limit: int) -> int:
    """The largest divisor up to a limit."""
    return next(one for one in range(min(limit, number), 0, -1) if number % one == 0)
