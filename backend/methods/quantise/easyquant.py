"""EasyQuant: outliers kept apart and ranges found by gradient, without any data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import OutOfReachError
from backend.later import torch
from backend.methods.base import LayerMethod, Outline, Stage, setting
from backend.methods.quantise import _apart, _grid

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

STARTS, STEPS = (1.0, 0.9, 0.8, 0.7, 0.6), 8
"""Shares of the whole range from which descents begin, and steps of each."""


@dataclass(frozen=True)
class Easyquant(LayerMethod):
    """Keep under one percent of the weights apart and set each range by gradient descent.

    The weights furthest from their row's mean, in its deviations, are kept in 16 bits. For the
    others each group's scale goes down the gradient of what rounding changes, from the range of
    the weights inwards, so that a few large ones no longer set it. No data is looked at.
    """

    stage = Stage.QUANTISE
    pace = 0.8
    paper = "arXiv 2403.02775"
    claim = "4 bits nearly without loss and without data, ten times faster than with."
    limits = "A matrix whose rows would hold under four outliers each goes without."
    accepts = ("dense", "low-rank", "sparse-2-4", "bitmask-sparse")
    yields = ("sum", "rows", "integer-groups")

    bits: float = setting(4.25, "Bits per weight, scales and outliers counted.", low=2.05, high=9.0)
    group_size: int = setting(
        0, "Weights that share a scale; 0 for a whole row.", choices=(0, 32, 64, 128, 256)
    )
    outliers: float = setting(0.008, "Largest share of weights kept apart.", low=0.0, high=0.05)
    deviations: float = setting(
        3.0, "Distance from the mean beyond which a weight is an outlier.", low=1.0, high=10.0
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """At most the budget: how many outliers there are is known once a matrix is seen."""
        _grid.plan(rows, columns, self.bits, self.group_size, symmetric=True)
        return super().outline(rows, columns)

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:  # noqa: ARG002
        """Round a weight [rows, columns]."""
        rows, columns = weight.shape
        outside = self._outside(weight)
        apart = _apart.bits(rows, int(outside.sum()))
        try:
            plan = _grid.plan(
                rows, columns, self.bits - apart / weight.numel(), self.group_size, symmetric=True
            )
        except OutOfReachError:  # the outliers take too much of it
            outside = torch.zeros_like(outside)
            plan = _grid.plan(rows, columns, self.bits, self.group_size, symmetric=True)
        inside = torch.where(outside, 0.0, weight)
        codes, scales, errors = _descend(inside, plan.coarse, plan.group_size)
        mask = _grid.fine_mask(errors, plan)
        if plan.fine > plan.coarse and plan.fine_rows:
            wide, wide_scales, _ = _descend(inside[mask], plan.fine, plan.group_size)
            codes[mask], scales[mask] = wide, wide_scales
        base = _grid.hold(codes, scales, torch.zeros_like(scales), mask, plan)
        return _apart.beside(base, weight, outside)

    def _outside(self, weight: Tensor) -> Tensor:
        """True for weights far from their row's mean, the furthest first, none if too few."""
        most = _apart.count(*weight.shape, self.outliers)
        spread = weight.std(1, unbiased=False, keepdim=True).clamp(min=1e-30)
        far = (weight - weight.mean(1, keepdim=True)).abs() / spread
        return _apart.largest(far, most) & (far > self.deviations)


def _descend(weight: Tensor, width: int, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [rows, columns] and scales [rows, groups] of least change, and that by row.

    The change of a group is piecewise a parabola in its scale: with codes c, its slope is the
    sum of (s c - w) c and its curvature that of c squared. Half of the way to the parabola's
    foot is taken at each step. The parabolas have many feet, so several descents begin within
    the range; the best scale seen is kept.
    """
    half = 1 << (width - 1)
    groups = _grid.grouped(weight, group_size)
    widest = groups.abs().amax(-1, keepdim=True) / (half - 0.5)
    best, least = widest, torch.full_like(widest, torch.inf)
    for start in STARTS:
        scale = start * widest
        for _ in range(STEPS):
            held = _grid.in_16_bits(scale).clamp(min=_grid.TINY)
            codes = (groups / held).round_().clamp_(-half, half - 1)
            change = held * codes - groups
            loss = change.square().sum(-1, keepdim=True)
            better = loss < least
            best, least = torch.where(better, held, best), torch.where(better, loss, least)
            slope = (change * codes).sum(-1, keepdim=True)
            curvature = codes.square().sum(-1, keepdim=True).clamp(min=1)
            scale = held - 0.5 * slope / curvature
    codes = (groups / best).round_().clamp_(-half, half - 1)
    errors = (best * codes - groups).flatten(1)[:, : weight.shape[1]].square().sum(1)
    return (codes + half).flatten(1)[:, : weight.shape[1]], best.squeeze(-1), errors
