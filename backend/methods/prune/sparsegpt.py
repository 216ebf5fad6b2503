"""SparseGPT: pruning whose errors are made good by the weights that stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.later import torch
from backend.methods import _surgeon
from backend.methods.base import Needs, setting
from backend.methods.prune._sparse import Pruner, top, top_in_groups

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

BLOCK = 128  # columns whose losses are weighed against each other


@dataclass(frozen=True)
class Sparsegpt(Pruner):
    """Leave out weights column by column and let the columns after make good each loss.

    The sweep is GPTQ's, with zero in place of the nearest grid point. Which weights go is
    decided block by block, by how much the best update would still lose: weight squared over
    the diagonal of the inverse Hessian. Works unstructured and in patterns of N in M.
    """

    needs = Needs.HESSIAN
    paper = "arXiv 2301.00774"
    claim = "50 to 60 % of 175B weights in one shot with hardly any loss; 2:4 and 4:8 too."

    damping: float = setting(
        0.01, "Share of the mean diagonal added to the Hessian.", low=1e-4, high=1.0
    )

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Prune a weight [rows, columns] against the Hessian of its inputs."""
        factor = statistics.inverse_factor(self.damping)
        columns = _surgeon.columns_of(statistics.alive(weight))
        chooser = _Chooser(self, columns, factor.diagonal())
        _surgeon.sweep(columns, factor, chooser.prune)
        return self.held(columns.T, chooser.mask.T)


class _Chooser:
    """Decides block by block, on the weights as mended so far, which of them stay."""

    def __init__(self, method: Sparsegpt, columns: Tensor, diagonal: Tensor) -> None:
        count, rows = columns.shape
        self.columns, self.diagonal = columns, diagonal
        self.keep, self.of = method.group(count)
        self.block = self.of or BLOCK
        self.share = method.kept(rows, count) / (rows * count)
        self.mask = torch.zeros(count, rows, dtype=torch.bool, device=columns.device)

    def prune(self, index: int, values: Tensor) -> Tensor:
        """The values [rows] of a column with those that go set to zero."""
        if index % self.block == 0:
            self._choose(index)
        return values * self.mask[index]

    def _choose(self, start: int) -> None:
        part = self.columns[start : start + self.block]
        scores = (part / self.diagonal[start : start + self.block, None]).square().T.contiguous()
        if self.of:
            mask = top_in_groups(scores, self.keep, self.of)
        else:
            kept = int(self.share * scores.numel())
            mask = top(scores.reshape(1, -1), kept).view(scores.shape)
        self.mask[start : start + self.block] = mask.T
