"""PTQ1.61: the inputs that matter in four bits, signs for all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.later import torch
from backend.methods import _surgeon
from backend.methods.base import LayerMethod, Needs, Outline, Stage, setting
from backend.methods.quantise import _descent, _grid

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

WIDTH = 4
TOP = (1 << WIDTH) - 1
RIDGE = 1e-6
LEAST = 8  # one column in so many is held as signs, or there would be too few to mend with


@dataclass(frozen=True)
class Ptq161(LayerMethod):
    """Hold the input channels with the largest activations in four bits, the others as signs.

    Which channels are apart takes one bit each, not one for every weight. A row of the others is
    its mean plus or minus one distance, times a number for each column. Columns take their codes
    and signs one after another, each error mended by those after it. Then, row by row and column
    by column in turns, these numbers take the values with which the layer's outputs change least,
    each time the foot of a parabola.
    """

    stage = Stage.QUANTISE
    needs = Needs.HESSIAN
    paper = "arXiv 2502.13179"
    pace = 0.34
    claim = "The first to work at 1.61 bits a weight, masks counted."
    limits = (
        "An eighth of the columns stay signs. A number a column takes 16 bits over the rows, much "
        "in matrices with few. Numbers are set layer by layer, not over a block, and weights are "
        "not trained for it beforehand."
    )
    accepts = ("dense", "low-rank")
    yields = ("columns",)

    bits: float = setting(
        3.25, "Bits per weight, codes, signs, masks and scales counted.", low=1.2, high=6.0
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
        for apart in range(columns - -(-columns // LEAST), 0, -1):
            if _nbytes(rows, columns, apart) <= budget:
                return apart
        least = -(-8 * _nbytes(rows, columns, 1) // rows)
        raise _grid.too_little(rows, columns, self.bits, least, "in codes and signs")

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Hold a weight [rows, columns] against the Hessian of its inputs."""
        order = statistics.order
        apart = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
        apart[order[: self.apart(*weight.shape)]] = True
        weight = statistics.alive(weight)
        points = _Points(weight, apart, order)
        factor = statistics.inverse_factor(self.damping, ordered=True)
        _surgeon.sweep(_surgeon.columns_of(weight, order), factor, points.round)
        fine = points.fine()
        target = weight.clone()
        target[:, apart] -= fine.dense()  # the signs may make good what the codes change
        hessian = statistics.damped(self.damping)
        rounds = _descent.feasible(hessian, self.rounds)
        signs = _Signs(target, points, hessian, rounds)
        coarse = formats.BinaryCodes.pack(
            signs.positive.unsqueeze(0),
            signs.rows[:, :1].unsqueeze(0),
            signs.rows[:, 1:],
            signs.columns.numel(),
        )
        return formats.Columns.pack(apart, fine, coarse, signs.columns)


class _Points:
    """Codes and signs that columns take on their way through the sweep.

    Attributes:
        apart: true for the columns that take codes, [columns].
        numbers: distance and mean of each row of the others, [rows, 2], rounded to 16 bits.
        taken: the code, or whether the sign is positive, [rows, columns].
    """

    def __init__(self, weight: Tensor, apart: Tensor, order: Tensor) -> None:
        """Set the points of each row by its weights as they are."""
        self.apart, self._places, self._fine = apart, order.tolist(), apart[order].tolist()
        low = weight[:, apart].amin(1).clamp(max=0)
        high = weight[:, apart].amax(1).clamp(min=0)
        self._scales = _grid.in_16_bits((high - low) / TOP).clamp(min=_grid.TINY)
        self._zeros = (-low / self._scales).round_().clamp_(0, TOP)
        others = weight[:, ~apart]
        mean = others.mean(1, keepdim=True)
        distance = (others - mean).abs().mean(1, keepdim=True)
        self.numbers = _grid.in_16_bits(torch.cat([distance, mean], dim=1))
        self.taken = torch.zeros_like(weight)

    def round(self, index: int, values: Tensor) -> Tensor:
        """The points nearest to the values [rows] of the column that is `index`-th in order."""
        if self._fine[index]:
            taken = (values / self._scales + self._zeros).round_().clamp_(0, TOP)
            found = (taken - self._zeros) * self._scales
        else:
            distance, mean = self.numbers.unbind(1)
            taken = (values >= mean).to(values.dtype)
            found = (2 * taken - 1) * distance + mean
        self.taken[:, self._places[index]] = taken
        return found

    def fine(self) -> Format:
        """The columns that take codes: one of 16 values of each row, a zero among them."""
        codes = self.taken[:, self.apart]
        return formats.IntegerGroups.pack(
            codes,
            self._scales.unsqueeze(1),
            bits=WIDTH,
            group_size=codes.shape[1],
            zero_points=self._zeros.unsqueeze(1),
        )


class _Signs:
    """(distance * sign + mean) of a row times a number of a column, nearest to a target.

    Attributes:
        positive: true for +1, [rows, columns of signs].
        rows: distance and mean, [rows, 2], rounded to 16 bits.
        columns: a number each, [columns of signs], rounded to 16 bits.
    """

    def __init__(self, target: Tensor, points: _Points, hessian: Tensor, rounds: int) -> None:
        """Set the numbers for a target [rows, all columns], the signs being taken."""
        places = ~points.apart
        self.positive = points.taken[:, places] > 0
        self._signs = torch.where(self.positive, 1.0, -1.0)
        self._wanted = (target @ hessian)[:, places]
        self._hessian = hessian[places][:, places]
        self.rows = points.numbers
        self.columns = torch.ones(self.positive.shape[1], device=target.device)
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
        normal = normal + ridge * torch.eye(len(normal), device=normal.device)
        found = torch.linalg.solve(normal, (values * self._wanted).sum(0) + ridge * self.columns)
        self.columns = _grid.in_16_bits(found)

    def _set_rows(self) -> None:
        """Distance and mean of each row: the foot of its parabola in both."""
        parts = torch.stack([self._signs, torch.ones_like(self._signs)], dim=1) * self.columns
        normal = (parts @ self._hessian) @ parts.mT
        ridge = RIDGE * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-30
        normal = normal + ridge[:, None, None] * torch.eye(2, device=normal.device)
        wanted = (parts * self._wanted.unsqueeze(1)).sum(2) + ridge[:, None] * self.rows
        self.rows = _grid.in_16_bits(torch.linalg.solve(normal, wanted.unsqueeze(2)).squeeze(2))


def _nbytes(rows: int, columns: int, apart: int) -> int:
    """The mask, then by row codes with a scale and a zero point, and signs with two numbers."""
    others = columns - apart
    row = -(-apart * WIDTH // 8) + 3 + -(-others // 8) + 4
    return -(-columns // 8) + rows * row + 2 * others
