"""LoRD: low rank where the outputs are, not where the weights are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.base import Needs
from backend.methods.factorise import _rank

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format


@dataclass(frozen=True)
class Lord(_rank.Factoriser):
    """Keep the directions in which a layer's outputs vary most, held as two thin factors.

    The principal directions Q of the outputs over calibration text are the eigenvectors of
    W H W^T, with H the second moment of the inputs; the layer becomes Q (Q^T W). No other
    product of that rank is nearer to the outputs.
    """

    needs = Needs.HESSIAN
    pace = 1.6
    paper = "arXiv 2309.14021"
    claim = "39.6 % less rank with under 1 % more perplexity, one shot; 22 % faster."

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Factor a weight [rows, columns] in the space of its outputs."""
        rank = _rank.rank_of(*weight.shape, self.bits)
        directions = _rank.output_axes(weight, statistics.hessian, rank)
        return _rank.hold(weight, directions, directions.T @ weight, self.bits)
