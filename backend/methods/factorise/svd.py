"""Truncated singular value decomposition of the weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.factorise import _rank

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format


@dataclass(frozen=True)
class Svd(_rank.Factoriser):
    """Replace each matrix by the nearest one of low rank, held as two thin factors.

    Nearest in the sum of squared differences of the weights (Eckart and Young); no data is
    looked at. The rank of each matrix follows from the budget and its shape.
    """

    pace = 0.6
    paper = "baseline"
    claim = "The baseline all other factorisations must beat."

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:  # noqa: ARG002
        """Factor a weight [rows, columns]."""
        rank = _rank.rank_of(*weight.shape, self.bits)
        return _rank.hold(weight, *_rank.leading(weight, rank), self.bits)
