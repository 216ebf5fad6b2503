"""FlatQuant: two small matrices a layer learn to flatten inputs and weights, both rounded then."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.later import torch
from backend.methods.base import (
    ROUNDED,
    THERE_AND_BACK,
    Effort,
    LayerMethod,
    Needs,
    Outline,
    Stage,
    Text,
    setting,
)
from backend.methods.quantise import _grid
from backend.methods.quantise.gptq import swept

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format
    from backend.methods.anatomy import Anatomy

    Turns = tuple[Tensor, Tensor]

BESIDE = 0.35  # bits a weight that the two matrices take at most
APART = 32  # bits of how far the range of inputs reaches
RATE = 5e-3
STEEP = 1e4  # condition up to which a learned matrix is believed


@dataclass(frozen=True)
class Flatquant(LayerMethod):
    """Learn for each layer a transform after which inputs and weights have no outliers left.

    Inputs are turned by two small matrices, whose Kronecker product is as wide as the layer, the
    weight by their inverses, so that the product stays the same. Both matrices and how far the
    range of inputs reaches are learned by gradient from inputs of the calibration text: until the
    outputs change least when inputs, token by token, and weights are rounded. The weight then is
    rounded with GPTQ's error feedback among turned inputs, which are rounded while the model runs.
    """

    stage = Stage.QUANTISE
    needs = Needs.HESSIAN | Needs.SAMPLES
    paper = "arXiv 2410.09426"
    claim = "W4A4 on LLaMA-3-70B with under 1 % loss; 2.3x faster prefill, 1.7x decoding."
    limits = (
        "No kernel here multiplies four bits by four: on a processor codes are multiplied by "
        "codes as integers of 8 bits, and more than 64 tokens at once, and all on a GPU, are "
        "rounded but multiplied as numbers. Each matrix learns by its own outputs, not by those "
        "of its block, and has matrices of its own, in wide layers over the whole width, in "
        f"narrow ones over runs of columns, so that they take at most {BESIDE} bits a weight. For "
        "the paper's four-bit keys and values add rotatekv or kv-int."
    )
    yields = ("rounded-inputs",)

    bits: float = setting(
        4.5, "Bits per weight, scales and small matrices counted.", low=2.25, high=9.0
    )
    inputs: int = setting(
        4, "Bits of an input while the model runs; 16 leaves it.", choices=(4, 6, 8, 16)
    )
    group_size: int = setting(
        128, "Weights that share a scale; 0 for a whole row.", choices=(0, 32, 64, 128, 256)
    )
    steps: int = setting(60, "Steps of gradient descent.", low=0, high=5000)
    damping: float = setting(
        0.01, "Share of the mean diagonal added to the Hessian.", low=1e-4, high=1.0
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Codes as planned, the small matrices and the reach."""
        return Outline(self._plan(rows, columns).nbytes(rows, columns) + beside(rows, columns))

    def effort(self, anatomy: Anatomy, text: Text) -> Effort:
        """Steps of every matrix there and back with what was kept of its inputs, rounded anew."""
        steps = self.steps * anatomy.linear
        return Effort(THERE_AND_BACK * steps * text.samples, ROUNDED * steps)

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Turn and round a weight [rows, columns]."""
        from backend.formats.rounded_inputs import turn

        plan, weight = self._plan(*weight.shape), statistics.alive(weight)
        learning = _Learning(weight, statistics.sampled(), plan, self.inputs)
        turns, reach = learning.after(self.steps)
        if turns is None:
            held = swept(weight, statistics, plan, self.damping)
        else:
            whole = turn(torch.eye(weight.shape[1], device=weight.device), *turns)
            turned = turn(weight, *inverses(turns))
            held = swept(turned, statistics.through(whole.T), plan, self.damping)
        return formats.RoundedInputs.pack(held, turns, bits=self.inputs, reach=reach)

    def _plan(self, rows: int, columns: int) -> _grid.Plan:
        """Widths of codes in what the small matrices leave of the budget.

        Raises:
            OutOfReachError: the narrowest codes take more.
        """
        more, size = 8 * beside(rows, columns) / rows, min(self.group_size or columns, columns)
        least = _grid.width_bits(columns, 1, size, symmetric=False) + more
        if least > self.bits * columns + 1e-6:
            way = f"in groups of {size}, turned by two matrices,"
            raise _grid.too_little(rows, columns, self.bits, math.ceil(least), way)
        return _grid.plan(rows, columns, self.bits - more / columns, size, symmetric=False)


def sides_of(rows: int, columns: int) -> tuple[int, int] | None:
    """Sides of the two matrices for a weight [rows, columns]; None where none pays.

    Together they turn as many columns as can be, and of all that do so are the smallest.
    """
    most = BESIDE * rows * columns / 16
    runs = [run for run in range(columns, 1, -1) if columns % run == 0]
    for run in runs:
        side = next(one for one in range(math.isqrt(run), 0, -1) if run % one == 0)
        if side**2 + (run // side) ** 2 <= most:
            return side, run // side
    return None


def beside(rows: int, columns: int) -> int:
    """Bytes of the two matrices of a weight [rows, columns], and of the reach."""
    sides = sides_of(rows, columns)
    return APART // 8 + (0 if sides is None else 2 * sum(side**2 for side in sides))


def inverses(turns: Turns) -> Turns:
    """What turns a weight where `turns` turn its inputs, so that their product stays."""
    left, right = (torch.linalg.inv(one.to(torch.float64)).T.float() for one in turns)
    return left, right


class _Learning:
    """Two matrices and a reach that change a layer's outputs least once all is rounded."""

    def __init__(self, weight: Tensor, inputs: Tensor, plan: _grid.Plan, bits: int) -> None:
        self._weight, self._inputs, self._plan, self._bits = weight, inputs, plan, bits
        self._wanted = inputs @ weight.T
        self._scale = float(self._wanted.square().mean().clamp(min=1e-30))
        self._sides = sides_of(*weight.shape)

    def after(self, steps: int) -> tuple[Turns | None, float]:
        """The best matrices, in 16 bits, and reach on a way of so many steps."""
        reach = torch.full((1,), 3.0, device=self._weight.device)  # 0.95 after the sigmoid
        best = min(
            ([reach, *start] for start in self._starts()), key=lambda one: float(self._loss(one))
        )
        parts = [one.clone().requires_grad_() for one in best]
        least, kept = float(self._loss(best)), best
        optimiser = torch.optim.Adam(parts, lr=RATE)
        for _ in range(steps):
            with torch.enable_grad():
                loss = self._loss(parts)
            if not loss.requires_grad:  # nothing is turned and no input rounded
                break
            if float(loss.detach()) < least and _mild(parts[1:]):
                least, kept = float(loss.detach()), [one.detach().clone() for one in parts]
            optimiser.zero_grad()
            loss.backward()
            if not all(bool(one.grad.isfinite().all()) for one in parts if one.grad is not None):
                break
            optimiser.step()
        turns = [_grid.in_16_bits(one) for one in kept[1:]]
        return (turns[0], turns[1]) if turns else None, float(kept[0].sigmoid())

    def _starts(self) -> list[list[Tensor]]:
        """Nothing turned, and turned by chance, which spreads what stands out over all."""
        if self._sides is None:
            return [[]]
        draw = torch.Generator().manual_seed(0)
        device = self._weight.device
        drawn = [torch.randn(side, side, generator=draw) for side in self._sides]
        turned = [torch.linalg.qr(one).Q.to(device) for one in drawn]
        return [[torch.eye(side, device=device) for side in self._sides], turned]

    def _loss(self, parts: list[Tensor]) -> Tensor:
        """How much outputs change, as a share of themselves."""
        from backend.formats.rounded_inputs import WHOLE, largest, rounded, turn

        reach, turns = parts[0].sigmoid(), parts[1:]
        inputs, weight = self._inputs, self._weight
        if turns:
            inputs = turn(inputs, *turns)
            weight = turn(weight, *(torch.linalg.inv(one).T for one in turns))
        if self._bits < WHOLE:
            tops = torch.full((1,), largest(self._bits), device=inputs.device)
            inputs = rounded(inputs, tops, inputs.shape[1], reach, _straight)
        change = inputs @ self._codes(weight).T - self._wanted
        return change.square().mean() / self._scale

    def _codes(self, weight: Tensor) -> Tensor:
        """A weight at the nearest points of its grid."""
        groups = _grid.grouped(weight, self._plan.group_size)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        step = ((high - low) / ((1 << self._plan.coarse) - 1)).clamp(min=_grid.TINY)
        found = _straight((groups - low) / step) * step + low
        return found.flatten(1)[:, : weight.shape[1]]


def _straight(values: Tensor) -> Tensor:
    """The nearest whole numbers, whose slope is taken for one."""
    return values + (values.round() - values).detach()


def _mild(turns: list[Tensor]) -> bool:
    """Whether matrices are far from singular."""
    return all(float(torch.linalg.cond(one.detach())) < STEEP for one in turns)
