"""M-FAC: weights go by the inverse Fisher matrix of a few gradients, which is never formed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.later import torch
from backend.methods.base import Effort, Needs, Text, setting
from backend.methods.prune._sparse import Pruner, top

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format
    from backend.methods.anatomy import Anatomy

MOST_ROWS = 256  # inputs that stand in for gradients where there are none
TOGETHER = 16  # rows of which each has gradients of its own


@dataclass(frozen=True)
class MFac(Pruner):
    """Leave out what the loss misses least by its curvature, known from a few gradients alone.

    The Fisher matrix of a layer's weights, row by row or all together, is that of one gradient for
    each calibration text, plus a part of the identity. Products with its inverse then need nothing
    but the gradients' products with each other, so that no matrix as wide as the weights are many
    is ever there. What goes is what costs least by weight squared over the inverse's diagonal,
    a part at each step; what stays then takes the values with which the loss rises least.
    """

    needs = Needs.HESSIAN | Needs.SAMPLES | Needs.EACH_GRADIENT
    paper = "arXiv 2107.03356"
    claim = "More accurate than first-order and diagonal pruning at the same sparsity."
    limits = (
        "One gradient of each calibration text, 64 at most, of the model as it is by then, block "
        "by block; the paper has up to a thousand, and goes on training between steps. A layer "
        "that not every text reaches is pruned by its inputs, as if these were each row's "
        "gradients."
    )

    damping: float = setting(
        1.0, "Part of the mean diagonal added to the Fisher matrix.", low=1e-5, high=100.0
    )
    block: str = setting(
        "row", "Weights whose curvature is known together.", choices=("row", "matrix")
    )
    steps: int = setting(4, "Parts in which the weights go.", low=1, high=64)

    def effort(self, anatomy: Anatomy, text: Text) -> Effort:
        """Gradients of each window times all others, once more than steps, and half to solve."""
        steps = self.steps if self.pattern == "unstructured" else 1
        return Effort((1.5 * steps + 1) * anatomy.linear * text.windows**2)

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Prune a weight [rows, columns] by the gradients of its loss."""
        weight = statistics.alive(weight)
        each, whole = statistics.gradients, weight
        if each is None:  # the same gradients to each row
            fisher = Fisher(statistics.sampled()[:MOST_ROWS].unsqueeze(0), self.damping)
        elif self.block == "row":
            fisher = Fisher(each.transpose(0, 1), self.damping)
        else:
            fisher = Fisher(each.flatten(1).unsqueeze(0), self.damping)
            whole = weight.reshape(1, -1)
        steps = 1 if self.group(weight.shape[1])[1] else self.steps
        gone = weight.numel() - self.kept(*weight.shape)
        found, mask = whole, torch.ones_like(whole, dtype=torch.bool)
        diagonal = fisher.inverse_diagonal(mask)
        for step in range(1, steps + 1):
            scores = (found.square() / diagonal).masked_fill(~mask, -1.0)  # what has gone stays so
            if step < steps:
                mask = top(scores.view(1, -1), weight.numel() - gone * step // steps)
            else:
                mask = self.mask_of(scores.view(weight.shape), per_row=False)
            mask = mask.view(whole.shape)
            found, diagonal = fisher.mended(whole, mask, again=step < steps)
        return self.held(found.view(weight.shape), mask.view(weight.shape))


class Fisher:
    """Matrices l + G^T G / m of gradients G [m, numbers], by what these are to each other."""

    def __init__(self, gradients: Tensor, damping: float) -> None:
        """Take the gradients of each row [rows, m, numbers], or of all [1, m, numbers]."""
        self._gradients = gradients.to(torch.float32)
        mean = float(self._gradients.square().mean())
        self._ridge = max(damping * mean, 1e-30)

    def inverse_diagonal(self, mask: Tensor) -> Tensor:
        """The diagonal of the inverse over the numbers that are there, for each row of a mask.

        (1 - g_i^T (m l + G G^T)^-1 g_i) / l, by Woodbury's identity; any number elsewhere.
        """
        return torch.cat([self._diagonal(*self._there(*one)) for one in self._together(mask)])

    def mended(self, weight: Tensor, mask: Tensor, *, again: bool) -> tuple[Tensor, Tensor]:
        """Rows [rows, numbers] without those that are not there, which the loss misses least.

        What stays takes G_K^T (m l + G_K G_K^T)^-1 G_Q w_Q, K being there and Q not: the least of
        the parabola of the change with zeros where they have to be. Beside it `inverse_diagonal`
        of the same mask where it is asked `again`, for which nothing is factored twice; else ones.
        """
        rows, diagonals = [], []
        parts = weight.split(TOGETHER)
        for part, (own, gradients) in zip(parts, self._together(mask), strict=True):
            there, factor = self._there(own, gradients)
            missed = gradients @ (part * ~own).unsqueeze(2)
            solved = torch.cholesky_solve(missed, factor)
            rows.append((part + (there.mT @ solved).squeeze(2)) * own)
            diagonals.append(self._diagonal(there, factor) if again else torch.ones_like(part))
        return torch.cat(rows), torch.cat(diagonals)

    def _diagonal(self, there: Tensor, factor: Tensor) -> Tensor:
        """What `inverse_diagonal` gives for some rows."""
        turned = torch.linalg.solve_triangular(factor, there, upper=False)
        return (1 - turned.square().sum(1)).clamp(min=1e-6) / self._ridge

    def _together(self, mask: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Some rows of a mask at a time, and their gradients."""
        for start in range(0, len(mask), TOGETHER):
            own = slice(start, start + TOGETHER)
            shared = len(self._gradients) == 1
            yield mask[own], self._gradients if shared else self._gradients[own]

    def _there(self, mask: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of what is there [rows, m, numbers], the factor of m l + their products."""
        there = gradients * mask.unsqueeze(1)
        products = (there @ there.mT).to(torch.float64)
        products.diagonal(dim1=1, dim2=2).add_(gradients.shape[1] * self._ridge)
        return there, torch.linalg.cholesky(products).to(torch.float32)
