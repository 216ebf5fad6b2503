"""Magnitude pruning: the smallest weights go, at once or gradually."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from backend.later import torch
from backend.methods.base import Needs, setting
from backend.methods.prune._sparse import Pruner

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

ROUNDS = 24  # of training between two prunings


@dataclass(frozen=True)
class Magnitude(Pruner):
    """Leave out the weights that are nearest to zero, at once or in steps with training between.

    The weights of a matrix compete with each other, or the neighbours within a pattern such as
    2:4. Looks at no data if all go at once. In several steps the share that is gone rises by a
    cubic, fast first and slow at the end, and after each step the weights that stay are trained
    on the layer's own outputs over calibration text.
    """

    version = 2
    paper = "arXiv 1710.01878"
    pace = 0.11
    claim = "A large sparse model beats a small dense one of the same size."

    steps: int = setting(
        1, "Steps in which weights go, the others trained after each; 1 is at once.", low=1, high=32
    )

    def wants(self) -> Needs:
        """The inputs' second moments if it trains."""
        return Needs.HESSIAN if self.steps > 1 else Needs.NOTHING

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Keep the largest of a weight [rows, columns]."""
        if self.steps == 1:
            return self.held(weight, self.mask_of(weight.abs(), per_row=False))
        target = statistics.alive(weight)
        left, mask = target, target != 0
        for step in range(1, self.steps + 1):
            mask = self._at(step, weight.shape).mask_of(left.abs(), per_row=False)
            left = _train(target, left * mask, mask, statistics.hessian)
        return self.held(left, mask)

    def _at(self, step: int, shape: tuple[int, ...]) -> Pruner:
        """The same at a step's share: the rest has gone by 1 - (1 - step / steps)^3."""
        last = step == self.steps
        if last:
            return self
        kept = self.kept(*shape) / (shape[0] * shape[1])
        if self.group(shape[1])[1]:
            kept = 0.5
        gone = (1 - kept) * (1 - (1 - step / self.steps) ** 3)
        bits = min(16.0, 8 * -(-shape[1] // 8) / shape[1] + 16 * (1 - gone))
        return replace(self, pattern="unstructured", bits=max(self.bits, bits))


def _train(target: Tensor, weight: Tensor, mask: Tensor, hessian: Tensor) -> Tensor:
    """Gradient descent with Nesterov's momentum on the outputs' squared change, zeros kept."""
    step = 1 / torch.linalg.matrix_norm(hessian, 2).clamp(min=1e-30)
    before = ahead = weight
    for turn in range(ROUNDS):
        now = ahead - step * ((ahead - target) @ hessian) * mask
        ahead = now + turn / (turn + 3) * (now - before)
        before = now
    return before
