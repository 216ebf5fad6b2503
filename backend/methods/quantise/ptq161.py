"""PTQ1.61: the inputs that matter in four bits, signs for all others."""

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

WIDTH = 4
RIDGE = 1e-6


@dataclass(frozen=True)
class Ptq161(LayerMethod):
    """Hold the input channels with the largest activations in four bits, the others as signs.

    Which channels are apart takes one bit each, not one for every weight. A row of the others is
    its mean plus or minus one distance, times a number for each column. Row by row and then
    column by column these numbers take the values with which the layer's outputs change least,
    in turns, each time the foot of a parabola.
    """

    stage = Stage.QUANTISE
    needs = Needs.HESSIAN
    paper = "arXiv 2502.13179"
    claim = "The first to work at 1.61 bits a weight, masks counted."
    limits = (
        "A number a column takes 16 bits over the rows, much in matrices with few. Numbers are set "
        "layer by layer, not over a block, and weights are not trained for it beforehand."
    )
    accepts = ("dense", "low-rank")
    yields = ("columns",)

    bits: float = setting(
        3.25, "Bits per weight, codes, signs, masks and scales counted.", low=1.2, high=3.75
    )
    rounds: int = setting(
        4, "Turns in which numbers of rows and columns are set anew.", low=0, high=20
    )
    damping: float = setting(
        0.01, "Share of the mean diagonal added to the Hessian.", low=1e-4, high=1.0
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Codes with a range a row, signs with two numbers a row and one a column, the mask."""
        return Outline(_nbytes(rows, columns, self.apart(rows, columns)))

    def apart(self, rows: int, columns: int) -> int:
        """How many columns of a matrix are held in four bits.

        Raises:
            OutOfReachError: not even one can be.
        """
        budget = int(self.bits * rows * columns / 8 + 1e-6)
        for apart in range(columns - 1, 0, -1):
            if _nbytes(rows, columns, apart) <= budget:
                return apart
        least = -(-8 * _nbytes(rows, columns, 1) // rows)
        raise _grid.too_little(rows, columns, self.bits, least, "in codes and signs")

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Hold a weight [rows, columns] against the Hessian of its inputs."""
        apart = torch.zeros(weight.shape[1], dtype=torch.bool)
        apart[statistics.order[: self.apart(*weight.shape)]] = True
        weight = statistics.alive(weight)
        fine = _codes(weight[:, apart])
        target = weight.clone()
        target[:, apart] -= fine.dense()  # the signs may make good what the codes change
        hessian = statistics.damped(self.damping)
        rounds = 0 if torch.linalg.cholesky_ex(hessian).info else self.rounds
        signs = _Signs(target, ~apart, hessian, rounds)
        coarse = formats.BinaryCodes.pack(
            signs.positive.unsqueeze(0),
            signs.rows[:, :1].unsqueeze(0),
            signs.rows[:, 1:],
            signs.columns.numel(),
        )
        return formats.Columns.pack(apart, fine, coarse, signs.columns)


def _codes(weight: Tensor) -> Format:
    """The nearest of 16 values between the ends of each row, a zero among them."""
    top = (1 << WIDTH) - 1
    low, high = weight.amin(1).clamp(max=0), weight.amax(1).clamp(min=0)
    scales = _grid.in_16_bits((high - low) / top).clamp(min=_grid.TINY).unsqueeze(1)
    zeros = (-low.unsqueeze(1) / scales).round_().clamp_(0, top)
    codes = (weight / scales + zeros).round_().clamp_(0, top)
    return formats.IntegerGroups.pack(
        codes, scales, bits=WIDTH, group_size=weight.shape[1], zero_points=zeros
    )


class _Signs:
    """(distance * sign + mean) of a row times a number of a column, nearest to a target.

    Attributes:
        positive: true for +1, [rows, columns of signs].
        rows: distance and mean, [rows, 2], rounded to 16 bits.
        columns: a number each, [columns of signs], rounded to 16 bits.
    """

    def __init__(self, target: Tensor, places: Tensor, hessian: Tensor, rounds: int) -> None:
        """Set signs and numbers for a target [rows, all columns]; they stand at `places`."""
        weight = target[:, places]
        mean = weight.mean(1, keepdim=True)
        self.positive = weight >= mean
        self._signs = torch.where(self.positive, 1.0, -1.0)
        self._wanted = (target @ hessian)[:, places]
        self._hessian = hessian[places][:, places]
        distance = (weight - mean).abs().mean(1, keepdim=True)
        self.rows = _grid.in_16_bits(torch.cat([distance, mean], dim=1))
        self.columns = torch.ones(weight.shape[1])
        best = self._loss(), self.rows, self.columns
        for _ in range(rounds):
            self._set_columns()
            self._set_rows()
            if (lost := self._loss()) < best[0]:
                best = lost, self.rows, self.columns
        _, self.rows, self.columns = best

    def _values(self) -> Tensor:
        """What the rows stand for before the columns' numbers."""
        return self.rows[:, :1] * self._signs + self.rows[:, 1:]

    def _loss(self) -> float:
        """What the outputs lose, less what they lose without any of the signs."""
        held = self._values() * self.columns
        return float(((held @ self._hessian) * held - 2 * held * self._wanted).sum())

    def _set_columns(self) -> None:
        """Numbers of the columns: the foot of one parabola in all of them."""
        values = self._values()
        normal = (values.T @ values) * self._hessian
        ridge = RIDGE * normal.diagonal().mean() + 1e-30
        normal = normal + ridge * torch.eye(len(normal))
        found = torch.linalg.solve(normal, (values * self._wanted).sum(0) + ridge * self.columns)
        self.columns = _grid.in_16_bits(found)

    def _set_rows(self) -> None:
        """Distance and mean of each row: the foot of its parabola in both."""
        parts = torch.stack([self._signs, torch.ones_like(self._signs)], dim=1) * self.columns
        normal = (parts @ self._hessian) @ parts.mT
        ridge = RIDGE * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-30
        normal = normal + ridge[:, None, None] * torch.eye(2)
        wanted = (parts * self._wanted.unsqueeze(1)).sum(2) + ridge[:, None] * self.rows
        self.rows = _grid.in_16_bits(torch.linalg.solve(normal, wanted.unsqueeze(2)).squeeze(2))


def _nbytes(rows: int, columns: int, apart: int) -> int:
    """The mask, then by row codes with a scale and a zero point, and signs with two numbers."""
    others = columns - apart
    row = -(-apart * WIDTH // 8) + 3 + -(-others // 8) + 4
    return -(-columns // 8) + rows * row + 2 * others
