"""CBQ: rounding and steps that neighbouring blocks learn together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.later import torch
from backend.methods.base import (
    ROUNDED,
    THERE_AND_BACK,
    Effort,
    Needs,
    Outline,
    RunMethod,
    Stage,
    Text,
    setting,
)
from backend.methods.quantise import _grid

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format
    from backend.methods.anatomy import Anatomy
    from backend.methods.quantise._low_rank_rounding import LowRankRounding

Run = Callable[["Tensor"], "Tensor"]
Pairs = Sequence[tuple["Tensor", "Tensor"]]  # inputs of a run, and the outputs wanted
WHOLE = 16  # bits of inputs that are left as they are
APART = 8  # of so many batches one is kept apart to tell whether learning helped
WARMING, LOOKS = 0.1, 8  # share of the steps in which the rate rises; times that are judged


@dataclass(frozen=True)
class Cbq(RunMethod):
    """Have several blocks at a time learn how all their weights are rounded, run after run.

    Errors of a block are made worse or good by the next. So a window of blocks slides over the
    model, each time over some blocks that learned before, and by gradient brings what comes out of
    it near what the dense blocks give, in squares and in divergence. What is learned are the steps
    of the grids, how far the codes of inputs reach, and which weights round up: not one by one but
    by a matrix of low rank added to what decides it. Beforehand outliers are found, first by
    quartiles, then by the gap that sets them apart; weights are cut there where that rounds
    better, and channels of inputs that stand out are scaled down, their weights up.
    """

    stage = Stage.QUANTISE
    needs = Needs.HESSIAN | Needs.SAMPLES
    paper = "arXiv 2312.07950"
    claim = "Best of its time with W4A4, W4A8 and W2A16; 4.3 hours for four bits at 65B."
    limits = (
        "No kernel here multiplies four bits by four: on a processor codes are multiplied by "
        "codes as integers of 8 bits, and more than 64 tokens at once, and all on a GPU, are "
        "rounded but multiplied as numbers. Channels are scaled by numbers held beside each "
        "matrix, where the paper puts them into the layer before. Rounding is up or down from the "
        "first step on, so that no penalty need drive it there. Where an allocator divides the "
        "budget, each matrix learns alone."
    )
    yields = ("integer-groups", "rows", "rounded-inputs")

    bits: float = setting(
        4.25, "Bits per weight, scales and offsets counted.", low=_grid.LOWEST, high=_grid.HIGHEST
    )
    inputs: int = setting(
        WHOLE, "Bits of an input while the model runs; 16 leaves it.", choices=(4, 8, 16)
    )
    group_size: int = setting(
        128, "Weights that share a scale; 0 for a whole row.", choices=(0, 32, 64, 128, 256)
    )
    window: int = setting(2, "Blocks that learn together.", low=1, high=8)
    overlap: int = setting(1, "Of these, blocks that the window before had too.", low=0, high=7)
    rank: int = setting(5, "Rank of what is added to the rounding.", low=1, high=64)
    steps: int = setting(200, "Steps of gradient descent of each window.", low=0, high=10_000)
    rate: float = setting(0.03, "Learning rate of the rounding at its highest.", low=1e-6, high=1.0)

    @property
    def runs(self) -> tuple[int, int]:
        """As set; at least one block is new each time."""
        return self.window, min(self.overlap, self.window - 1)

    def outline(self, rows: int, columns: int) -> Outline:
        """Codes as planned and, where inputs are rounded, their divisors and the reach."""
        return Outline(self._plan(rows, columns).nbytes(rows, columns) + self._beside(columns))

    def effort(self, anatomy: Anatomy, text: Text) -> Effort:
        """Steps of every window there and back, and of all that rounds its weights."""
        blocks, (size, shared) = len(anatomy.blocks), self.runs
        windows = max(1, math.ceil((blocks - shared) / (size - shared)))
        steps = windows * self.steps * min(1.0, size / max(1, blocks)) * anatomy.linear
        return Effort(THERE_AND_BACK * steps * text.step, ROUNDED * steps)

    def soft(self, weight: Tensor, statistics: InputStatistics) -> LowRankRounding:
        """A weight [rows, columns] with outliers treated, not yet learned."""
        from backend.methods.quantise._low_rank_rounding import LowRankRounding

        plan = self._plan(*weight.shape)
        weight = statistics.alive(weight)
        return LowRankRounding(weight, statistics, plan, inputs=self.inputs, rank=self.rank)

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """A weight that learns alone, by its outputs' squares; they are no scores to compare."""
        soft, inputs = self.soft(weight, statistics), statistics.sampled()
        pairs = [(inputs, inputs @ statistics.alive(weight).T)]
        self._descend(soft.learned(), soft.multiply, pairs, pairs, squares)
        return soft.held()

    def learn(
        self,
        softs: Sequence[LowRankRounding],
        run: Run,
        inputs: Sequence[Tensor],
        wanted: Sequence[Tensor],
    ) -> None:
        """By squares and divergence; batches kept apart tell how far it helps, if many."""
        apart = len(inputs) // APART
        pairs = list(zip(inputs, wanted, strict=True))
        learned, judged = pairs[: len(pairs) - apart], pairs[-apart:] if apart else pairs
        self._descend(
            [part for one in softs for part in one.learned()], run, learned, judged, distance
        )

    def _descend(
        self,
        parts: Sequence[Tensor],
        run: Run,
        learned: Pairs,
        judged: Pairs,
        loss_of: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """By Adam at a rate that rises and falls, to where what is judged loses least."""
        best, kept = _judge(run, judged, loss_of), [part.detach().clone() for part in parts]
        optimiser = torch.optim.Adam(parts, lr=self.rate)
        for step in range(self.steps):
            share = min((step + 1) / max(1.0, WARMING * self.steps), 1 - step / self.steps)
            optimiser.param_groups[0]["lr"] = self.rate * share
            given, aim = learned[step % len(learned)]
            with torch.enable_grad():
                loss = loss_of(run(given), aim)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if (step + 1) % max(1, self.steps // LOOKS) == 0:
                found = _judge(run, judged, loss_of)
                if found < best:  # what is no number is not
                    best, kept = found, [part.detach().clone() for part in parts]
        for part, found in zip(parts, kept, strict=True):
            part.data.copy_(found)

    def _beside(self, columns: int) -> int:
        """Bytes of the divisors of so many inputs, and of their reach."""
        return 0 if self.inputs == WHOLE else 2 * columns + 4

    def _plan(self, rows: int, columns: int) -> _grid.Plan:
        """Widths of codes in what the divisors leave of the budget.

        Raises:
            OutOfReachError: the narrowest codes take more.
        """
        more, size = 8 * self._beside(columns) / rows, min(self.group_size or columns, columns)
        least = _grid.width_bits(columns, 1, size, symmetric=False) + more
        if least > self.bits * columns + 1e-6:
            way = f"in groups of {size}"
            raise _grid.too_little(rows, columns, self.bits, math.ceil(least), way)
        return _grid.plan(rows, columns, self.bits - more / columns, size, symmetric=False)


def squares(found: Tensor, wanted: Tensor) -> Tensor:
    """The squared change of outputs as a share of theirs."""
    return (found - wanted).square().mean() / wanted.square().mean().clamp(min=1e-30)


def distance(found: Tensor, wanted: Tensor) -> Tensor:
    """How far outputs [..., columns] are from those wanted: squares as a share, and divergence.

    The divergence is that of their softmax over the columns, of found from wanted, in nats. The
    paper adds the squares as they are; as a share they weigh as much in every block.
    """
    sure, guess = wanted.log_softmax(-1), found.log_softmax(-1)
    return squares(found, wanted) + (sure.exp() * (sure - guess)).sum(-1).mean()


def _judge(run: Run, pairs: Pairs, loss_of: Callable[[Tensor, Tensor], Tensor]) -> float:
    with torch.no_grad():
        return sum(float(loss_of(run(given), wanted)) for given, wanted in pairs) / len(pairs)
