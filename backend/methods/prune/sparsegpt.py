"""SparseGPT: pruning whose errors are made good by the weights that stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.later import torch
from backend.methods import _surgeon
from backend.methods.base import Needs, setting
from backend.methods.prune._sparse import PATTERNS, Pruner, top, top_in_groups

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format


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
        chooser = _Chooser(self, weight.shape, factor.diagonal())
        columns = weight.T.contiguous()
        chooser.columns = columns
        pruned = _surgeon.sweep(columns, factor, chooser.prune)
        return self.held(pruned.T, chooser.mask.T)


class _Chooser:
    """Decides block by block, on the weights as mended so far, which of them stay."""

    columns: Tensor

    def __init__(self, method: Sparsegpt, shape: tuple[int, ...], diagonal: Tensor) -> None:
        rows, count = shape
        self.diagonal = diagonal
        self.keep, self.of = PATTERNS[method.pattern]
        if self.of and count % self.of:
            self.of = 0
        self.block = self.of or _surgeon.BLOCK
        self.share = method.kept(rows, count) / (rows * count)
        self.mask = torch.zeros(count, rows, dtype=torch.bool)

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
            mask = top(scores.view(1, -1), kept).view(scores.shape)
        self.mask[start : start + self.block] = mask.T
