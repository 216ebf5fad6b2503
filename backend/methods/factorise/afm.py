"""Atomic feature mimicking: the principal components of what a layer says, not of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.errors import OutOfReachError
from backend.methods.base import Needs, Outline
from backend.methods.factorise import _rank

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format


@dataclass(frozen=True)
class Afm(_rank.Factoriser):
    """Keep the principal components of a layer's outputs, and their mean as it is.

    The components U are the leading eigenvectors of the outputs' covariance over calibration
    text, W (E[x x^T] - E[x] E[x]^T) W^T, and the layer becomes U (U^T W) plus a shift: what the
    outputs always say, (I - U U^T) W E[x], spends no component. The shift takes 16 bits an output
    and is counted.
    """

    needs = Needs.HESSIAN
    pace = 1.0
    paper = "arXiv 2405.18146"
    claim = "Models 3 to 5 times smaller answer better than whole ones (click-through rates)."
    limits = (
        "Activations between the factors, tables of embeddings and fine-tuning are left out. Where "
        "a budget is divided over layers, the choice looks at the factors without their shift."
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Two factors and the shift, or the matrix itself where nothing is saved."""
        if self.bits >= 16:
            return Outline(leaves=((rows, columns),))
        rank = self.rank(rows, columns)
        return Outline(2 * rows, ((rows, rank), (rank, columns)))

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Factor a weight [rows, columns] along the components of its outputs."""
        if self.bits >= 16:
            return formats.Dense.pack(weight)
        mean = statistics.means
        covariance = statistics.hessian - mean.outer(mean)
        components = _rank.output_axes(weight, covariance, self.rank(*weight.shape))
        right = components.T @ weight
        shift = weight @ mean - components @ (right @ mean)
        return formats.LowRank.pack(components, right, shift)

    def rank(self, rows: int, columns: int) -> int:
        """Components whose two bfloat16 factors fit beside the shift.

        Raises:
            OutOfReachError: not even one fits.
        """
        rank = int((self.bits * rows * columns / 16 - rows) // (rows + columns))
        if rank < 1:
            least = 16 * (2 * rows + columns) / (rows * columns)
            raise OutOfReachError(
                f"One component of a matrix {rows} x {columns} and the shift take {least:.2f} "
                f"bits per number or more, not {self.bits:g}."
            )
        return rank
