"""AdaDim: groups along input or output channels, whichever suits the layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.errors import OutOfReachError
from backend.later import torch
from backend.methods import _surgeon
from backend.methods.base import LayerMethod, Needs, Outline, setting
from backend.methods.quantise import _grid
from backend.methods.quantise._integer import IntegerQuantiser
from backend.methods.quantise.gptq import Gptq

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format


@dataclass(frozen=True)
class Adadim(IntegerQuantiser):
    """Let each layer choose whether the weights of an input or of an output share a scale.

    Large activations come in a few input channels, and so do the weights that matter. Groups
    along an output mix such weights with all others; groups along an input keep them among
    themselves. Both are tried on every layer, with rounding to nearest or with GPTQ, and the one
    whose outputs stay nearer on calibration text is held.
    """

    needs = Needs.HESSIAN
    paper = "arXiv 2309.15531"
    pace = 0.44
    claim = "Up to 4.7 points more on MMLU than the method that it wraps."
    accepts = ("dense", "low-rank")
    yields = ("integer-groups", "rows", "transposed")

    within: str = setting("gptq", "How weights are rounded.", choices=("gptq", "rtn"))

    def outline(self, rows: int, columns: int) -> Outline:
        """At most the budget: which direction a layer takes is known once it is treated."""
        super().outline(rows, columns)
        return LayerMethod.outline(self, rows, columns)

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Round a weight [rows, columns] in both directions and hold the better."""
        weight = statistics.alive(weight)
        settings = {"group_size": self.group_size, "symmetric": self.symmetric}
        plan = _grid.plan(*weight.shape, self.bits, self.group_size, self.symmetric)
        if self.within == "gptq":
            along = Gptq(self.bits, **settings).fit(weight, statistics)
        else:
            along = _grid.nearest(weight, plan)
        try:
            across = self._across(weight, statistics)
        except OutOfReachError:
            return along
        better = _loss(weight, across, statistics) < _loss(weight, along, statistics)
        return across if better else along

    def _across(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Groups along the outputs of one input channel; some channels with wider codes."""
        plan = _grid.plan(*weight.T.shape, self.bits, self.group_size, self.symmetric)
        errors = _grid.rounding_error(weight.T, plan.coarse, plan.group_size, plan.symmetric)
        mask = _grid.fine_mask(errors.square().sum(1) * statistics.mean_squares, plan)
        damping, order = Gptq().damping, statistics.order
        grid = _Channels(plan, mask, order, weight.shape[0])
        if self.within == "gptq":
            factor = statistics.inverse_factor(damping, ordered=True)
            _surgeon.sweep(_surgeon.columns_of(weight, order), factor, grid.round)
        else:
            for place, values in enumerate(_surgeon.columns_of(weight, order)):
                grid.round(place, values)
        held = _grid.hold(grid.codes, grid.scales, grid.offsets, mask, plan)
        return formats.Transposed.of(held)


class _Channels:
    """Rounds one input channel after another, each to the ranges that it then has."""

    def __init__(self, plan: _grid.Plan, mask: Tensor, order: Tensor, rows: int) -> None:
        self.plan = plan
        self.places = order.tolist()
        self.widths = [plan.fine if fine else plan.coarse for fine in mask.tolist()]
        device = mask.device
        groups = -(-rows // plan.group_size)
        self.codes = torch.empty(len(self.places), rows, device=device)
        self.scales = torch.empty(len(self.places), groups, device=device)
        self.offsets = torch.empty(len(self.places), groups, device=device)

    def round(self, index: int, values: Tensor) -> Tensor:
        """Grid points nearest to the values [rows] of the channel `index`-th in order."""
        place = self.places[index]
        width, size = self.widths[place], self.plan.group_size
        channel = values.unsqueeze(0)
        codes, scale, offset = _grid.round_to_nearest(channel, width, size, self.plan.symmetric)
        self.codes[place], self.scales[place], self.offsets[place] = codes, scale, offset
        rows = values.numel()
        step = scale.repeat_interleave(size, 1)[:, :rows]
        return _grid.decode(codes, step, offset.repeat_interleave(size, 1)[:, :rows], width)[0]


def _loss(weight: Tensor, held: Format, statistics: InputStatistics) -> float:
    """Mean squared change of the outputs."""
    change = weight - held.dense()
    return float(((change @ statistics.hessian) * change).sum())
