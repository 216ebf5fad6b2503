"""GPTQ: rounding whose errors are made good by the weights not yet rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.later import torch
from backend.methods import _surgeon
from backend.methods.base import Needs, setting
from backend.methods.quantise import _grid
from backend.methods.quantise._integer import IntegerQuantiser

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format, Sparse


@dataclass(frozen=True)
class Gptq(IntegerQuantiser):
    """Round column by column and let the columns not yet rounded make good each error.

    How much a later column can make good follows from the Hessian of the layer's outputs,
    X X^T over calibration inputs. Columns are taken in order of their energy, scales are set
    beforehand group by group, and the sweep goes in blocks through the Cholesky factor of the
    inverse Hessian. Layers that read the same input share that factor. A budget between two
    code widths gives the rows whose outputs would suffer most the wider codes. In a sparse
    matrix what was left out stays out, and what is mended there flows on to later columns, as
    when SparseGPT prunes and rounds in one pass.
    """

    needs = Needs.HESSIAN
    paper = "arXiv 2210.17323"
    claim = "3 to 4 bits in about four GPU hours at 175B; 3.25x to 4.5x faster end to end."
    accepts = ("dense", "low-rank", "sparse-2-4", "bitmask-sparse")

    activation_order: bool = setting(
        True, "Round the columns with the largest inputs first.", choices=(False, True)
    )
    damping: float = setting(
        0.01, "Share of the mean diagonal added to the Hessian.", low=1e-4, high=1.0
    )

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Round a weight [rows, columns] against the Hessian of its inputs."""
        plan = _grid.plan(*weight.shape, self.bits, self.group_size, self.symmetric)
        return swept(weight, statistics, plan, self.damping, ordered=self.activation_order)

    def fit_sparse(self, held: Sparse, statistics: InputStatistics) -> Format:
        """Round the kept values of a sparse weight against the Hessian of its inputs."""
        plan = _grid.plan(*held.values.shape, self.bits, self.group_size, self.symmetric)
        weight, kept = statistics.alive(held.dense()), held.kept()
        order = _order(statistics, weight, ordered=self.activation_order)
        factor = statistics.inverse_factor(self.damping, ordered=self.activation_order)
        diagonal = factor.diagonal()[order.argsort()].expand(weight.shape)
        values = held.compact(weight)
        mask = _fine_rows(values, plan, held.compact(diagonal))
        grid = _SparseGrid(values, kept, plan, mask, order)
        _surgeon.sweep(_surgeon.columns_of(weight, order), factor, grid.round)
        codes = held.compact(grid.codes.T)
        return _grid.hold(codes, grid.scales, grid.offsets, mask, plan)


def swept(
    weight: Tensor,
    statistics: InputStatistics,
    plan: _grid.Plan,
    damping: float,
    *,
    ordered: bool = True,
) -> Format:
    """A weight [rows, columns] in codes as planned, each column's error mended by those after it.

    Args:
        weight: any rows of a layer, for rows are mended apart.
        statistics: of the layer's inputs.
        plan: widths, and how many rows have the wider.
        damping: share of the mean diagonal added to the Hessian.
        ordered: the columns with the largest inputs first.
    """
    weight = statistics.alive(weight)
    order = _order(statistics, weight, ordered=ordered)
    factor = statistics.inverse_factor(damping, ordered=ordered)
    mask = _fine_rows(weight, plan, factor.diagonal()[order.argsort()])
    grid = _Grid(weight, plan, mask, order)
    _surgeon.sweep(_surgeon.columns_of(weight, order), factor, grid.round)
    return _grid.hold(grid.codes.T, grid.scales.T, grid.offsets.T, mask, plan)


def _order(statistics: InputStatistics, weight: Tensor, *, ordered: bool) -> Tensor:
    """Columns [columns] as they are rounded, those with the largest inputs first if wanted."""
    if ordered:
        return statistics.order
    return torch.arange(weight.shape[1], device=weight.device)


def _fine_rows(weight: Tensor, plan: _grid.Plan, diagonal: Tensor) -> Tensor:
    """The rows that lose most in coarse codes: a mended column j loses error squared / U_jj^2."""
    if not plan.fine_rows:
        return torch.zeros(weight.shape[0], dtype=torch.bool, device=weight.device)
    rounding = _grid.rounding_error(weight, plan.coarse, plan.group_size, plan.symmetric)
    return _grid.fine_mask(rounding.div_(diagonal).square_().sum(1), plan)


class _Grid:
    """Rounds columns to grids of two widths; keeps their codes in the weight's own order."""

    def __init__(
        self,
        weight: Tensor,
        plan: _grid.Plan,
        mask: Tensor,
        order: Tensor,
    ) -> None:
        self.places = order.tolist()
        self.groups = (order // plan.group_size).tolist()
        groups = _grid.grouped(weight, plan.group_size)
        wide = _grid.ranges(groups, plan.fine, plan.symmetric)
        narrow = _grid.ranges(groups, plan.coarse, plan.symmetric)
        self.scales, self.offsets = (
            torch.where(mask.unsqueeze(1), a, b).T.contiguous()
            for a, b in zip(wide, narrow, strict=True)
        )
        widths = torch.where(mask, float(plan.fine), float(plan.coarse))
        self.top = torch.exp2(widths) - 1
        self.bottom = torch.zeros_like(self.top)
        self.codes = weight.new_empty(weight.shape[1], weight.shape[0])
        self._lowest = (self.offsets - self.scales * torch.exp2(widths - 1)).unbind()
        self._steps, self._rows = self.scales.unbind(), self.codes.unbind()

    def round(self, index: int, values: Tensor) -> Tensor:
        """Grid points nearest to the values [rows] of the column that is `index`-th in order."""
        group = self.groups[index]
        lowest, step = self._lowest[group], self._steps[group]
        code = torch.sub(values, lowest, out=self._rows[self.places[index]])
        code.div_(step).round_().clamp_(self.bottom, self.top)
        return torch.addcmul(lowest, code, step)


class _SparseGrid:
    """Rounds columns of a sparse weight, whose kept values lie in groups of their own order."""

    def __init__(
        self, values: Tensor, kept: Tensor, plan: _grid.Plan, mask: Tensor, order: Tensor
    ) -> None:
        self.places = order.tolist()
        groups = _grid.grouped(values, plan.group_size)
        wide = _grid.ranges(groups, plan.fine, plan.symmetric)
        narrow = _grid.ranges(groups, plan.coarse, plan.symmetric)
        self.scales, self.offsets = (
            torch.where(mask.unsqueeze(1), a, b) for a, b in zip(wide, narrow, strict=True)
        )
        widths = torch.where(mask, float(plan.fine), float(plan.coarse)).unsqueeze(1)
        spread = lambda part: part.repeat_interleave(plan.group_size, 1)[:, : values.shape[1]]  # noqa: E731
        steps = spread(self.scales)
        lowest = spread(self.offsets) - steps * torch.exp2(widths - 1)
        tops = (torch.exp2(widths) - 1).expand_as(steps)
        self._steps = _laid_out(steps, kept, 1.0)
        self._lowest = _laid_out(lowest, kept, 0.0)
        self._tops = _laid_out(tops, kept, 0.0)  # the one code of what is left out stands for 0
        self._zero = torch.zeros(kept.shape[0], device=kept.device)
        self.codes = torch.empty(kept.shape[1], kept.shape[0], device=kept.device)

    def round(self, index: int, values: Tensor) -> Tensor:
        """Grid points nearest to the values [rows] of a column; zero where none is kept."""
        place = self.places[index]
        lowest, step = self._lowest[place], self._steps[place]
        code = torch.sub(values, lowest, out=self.codes[place])
        code.div_(step).round_().clamp_(self._zero, self._tops[place])
        return torch.addcmul(lowest, code, step)


def _laid_out(values: Tensor, kept: Tensor, elsewhere: float) -> Tensor:
    """Values of the kept entries at their places, transposed: [columns, rows]."""
    dense = torch.full(kept.shape, elsewhere, device=kept.device)
    dense[kept] = values.flatten()
    return dense.T.contiguous()
