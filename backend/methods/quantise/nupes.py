"""NUPES: grids bent by a power, whose exponent each matrix searches for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.later import torch
from backend.methods.base import LayerMethod, Outline, Stage, setting
from backend.methods.quantise import _grid, _tables

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

WIDTHS = (2, 3, 4, 5, 6)
EXPONENTS = tuple(place / 20 for place in range(7, 23))  # 0.35 to 1.1
SAMPLE = 1 << 16  # weights by which an exponent is judged, evenly spread


@dataclass(frozen=True)
class Nupes(LayerMethod):
    """Round evenly after raising every weight to a power, and take the root of what comes out.

    Powers are the bijections of positive numbers that keep products products, and one below 1
    spreads the small weights, of which there are most. Each matrix tries exponents from 0.35 to 1.1
    on its own weights, and each group how far its last grid point should reach; what changes them
    least is held, as the values that codes stand for. No data is looked at. A budget between two
    code widths gives the rows that change most the wider codes.
    """

    stage = Stage.QUANTISE
    pace = 1.0
    paper = "arXiv 2308.05600"
    claim = "The best quantisation without data and without even spacing."
    limits = "The exponent is searched, not learned; activations keep 16 bits."
    yields = ("table-codes", "rows")

    bits: float = setting(
        4.25, "Bits per weight, scales and the table counted.", low=2.05, high=6.25
    )
    group_size: int = setting(
        128, "Weights that share a scale; 0 for a whole row.", choices=(0, 32, 64, 128, 256)
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Codes, scales and tables, and a bit a row where there are two widths."""
        split = self._split(rows, columns)
        return Outline(_tables.nbytes((rows, columns), self._size(columns), split))

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:  # noqa: ARG002
        """Round a weight [rows, columns]."""
        split, size = self._split(*weight.shape), self._size(weight.shape[1])
        return _tables.hold(weight, size, split, torch.ones_like(weight), bent)

    def _size(self, columns: int) -> int:
        return min(self.group_size or columns, columns)

    def _split(self, rows: int, columns: int) -> _tables.Split:
        """How many rows have codes how wide.

        Raises:
            OutOfReachError: two-bit codes take more than the budget.
        """
        size = self._size(columns)
        found = _tables.widths((rows, columns), self.bits * rows * columns, size, WIDTHS)
        if found is None:
            least = -(-8 * _tables.nbytes((rows, columns), size, (2, 2, 0)) // rows)
            raise _grid.too_little(rows, columns, self.bits, least, f"in groups of {size}")
        return found


def bent(shares: Tensor, width: int) -> Tensor:
    """The grid [2**width] between -1 and 1 that is nearest to weights, over all exponents."""
    groups = shares.flatten(0, -2)
    groups = groups[:: max(1, groups.numel() // SAMPLE)]
    worth = torch.ones_like(groups)
    grids = [grid(exponent, width).to(shares.device) for exponent in EXPONENTS]
    losses = [float(_tables.reached(groups, worth, one)[2].sum()) for one in grids]
    return grids[min(range(len(grids)), key=losses.__getitem__)]


def grid(exponent: float, width: int) -> Tensor:
    """Values x with sign(x) |x|**exponent spread evenly from -1 to 1, [2**width], rising."""
    even = torch.linspace(-1, 1, 1 << width)
    return even.sign() * even.abs().pow(1 / exponent)
