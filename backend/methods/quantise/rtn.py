"""Round to nearest: the baseline that every quantiser must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.quantise import _grid
from backend.methods.quantise._integer import IntegerQuantiser

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format


@dataclass(frozen=True)
class Rtn(IntegerQuantiser):
    """Round every weight to the nearest of a few evenly spaced values.

    Weights are cut into groups along each row. A group keeps a scale and an offset of 16 bits,
    and each weight the number of its grid point. No data is looked at. A budget between two
    code widths gives the rows with the largest rounding errors the wider codes.
    """

    pace = 0.006
    paper = "baseline"
    claim = "The baseline all other quantisers must beat."
    accepts = ("dense", "low-rank", "sparse-2-4", "bitmask-sparse")

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:  # noqa: ARG002
        """Round a weight [rows, columns]."""
        plan = _grid.plan(*weight.shape, self.bits, self.group_size, self.symmetric)
        return _grid.nearest(weight, plan)
