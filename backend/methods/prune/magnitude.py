"""Magnitude pruning: the smallest weights go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.prune._sparse import Pruner

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format


@dataclass(frozen=True)
class Magnitude(Pruner):
    """Leave out the weights that are nearest to zero.

    Looks at no data. The weights of a matrix compete with each other, or the neighbours within
    a pattern such as 2:4.
    """

    paper = "arXiv 1710.01878"
    claim = "A large sparse model beats a small dense one of the same size."

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:  # noqa: ARG002
        """Keep the largest of a weight [rows, columns]."""
        return self.held(weight, self.mask_of(weight.abs(), per_row=False))
