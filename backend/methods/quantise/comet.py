"""COMET: weights of four bits, inputs of four bits too but for the blocks where outliers lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.methods.base import LayerMethod, Needs, Outline, Stage, setting
from backend.methods.quantise import _grid
from backend.methods.quantise.gptq import swept

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

NARROW = 4
REACHES = tuple(1 - 0.05 * step for step in range(9))
"""Of a block's largest input, what the largest code stands for."""


@dataclass(frozen=True)
class Comet(LayerMethod):
    """Round inputs to four bits in blocks, and those blocks to eight in which outliers lie.

    Outliers stay in a few channels whatever the text says. So channels are put in the order of the
    largest input that each has had, which brings outliers together, and cut into blocks that have
    a step of their own for every token: the first blocks in eight bits, all others in four (FMPQ).
    Weights follow that order, rounded with GPTQ's error feedback. How far the codes of inputs
    reach is what changes the outputs of the calibration text least.
    """

    stage = Stage.QUANTISE
    needs = Needs.HESSIAN | Needs.SAMPLES
    paper = "arXiv 2410.12168"
    claim = "W4A4KV4: 2.88x over cuBLAS in its products, 2.02x over TensorRT-LLM end to end."
    limits = (
        "The paper's W4Ax kernel is for tensor cores: on a processor codes are multiplied by "
        "codes as integers of 8 bits, so that blocks of 4 save no time, and more than 64 tokens "
        "at once, and all on a GPU, are rounded but multiplied as numbers. Which blocks are wide "
        "is a share, not a threshold. For the paper's four-bit keys and values add kv-int. Without "
        "a compiler, or on a GPU, tokens that are verified together are summed in another order "
        "than one by one, so that an input between two steps may take the other and a drafted "
        "token differ."
    )
    yields = ("rounded-inputs",)

    bits: float = setting(4.75, "Bits per weight, scales and order counted.", low=1.5, high=9.5)
    wide: float = setting(
        0.25, "Share of the blocks of inputs that have 8 bits.", low=0.0, high=1.0
    )
    block: int = setting(32, "Inputs that share a step.", choices=(16, 32, 64, 128))
    group_size: int = setting(
        128, "Weights that share a scale; 0 for a whole row.", choices=(0, 32, 64, 128, 256)
    )
    damping: float = setting(
        0.01, "Share of the mean diagonal added to the Hessian.", low=1e-4, high=1.0
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Codes as planned, the order and the reach."""
        return Outline(self._plan(rows, columns).nbytes(rows, columns) + beside(columns))

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Order and round a weight [rows, columns]."""
        plan, weight = self._plan(*weight.shape), statistics.alive(weight)
        inputs = statistics.sampled()
        order = inputs.abs().amax(0).argsort(descending=True, stable=True)
        held = swept(weight[:, order], statistics.arranged(order), plan, self.damping)
        columns = weight.shape[1]
        blocks = round(self.wide * -(-columns // self.block))
        rest = {"bits": NARROW, "block": self.block, "wide": min(columns, blocks * self.block)}
        made = [formats.RoundedInputs.pack(held, reach=r, order=order, **rest) for r in REACHES]
        matrix, wanted = held.dense(), inputs @ weight.T
        return min(
            made, key=lambda one: float((one.seen(inputs) @ matrix.T - wanted).square().sum())
        )

    def _plan(self, rows: int, columns: int) -> _grid.Plan:
        """Widths of codes in what the order leaves of the budget.

        Raises:
            OutOfReachError: the narrowest codes take more.
        """
        more, size = 8 * beside(columns) / rows, min(self.group_size or columns, columns)
        least = _grid.width_bits(columns, 1, size, symmetric=False) + more
        if least > self.bits * columns + 1e-6:
            way = f"in groups of {size}, its columns in an order of their own,"
            raise _grid.too_little(rows, columns, self.bits, math.ceil(least), way)
        return _grid.plan(rows, columns, self.bits - more / columns, size, symmetric=False)


def beside(columns: int) -> int:
    """Bytes of the places of so many columns, and of the reach."""
    return columns * (2 if columns <= 1 << 15 else 4) + 4
