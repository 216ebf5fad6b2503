"""BitStack: weights as a stack of one-bit blocks, loaded as far as the memory goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.errors import OutOfReachError
from backend.methods.base import Needs, StackMethod, Stage, setting
from backend.methods.factorise._rank import leading

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format


@dataclass(frozen=True)
class Bitstack(StackMethod):
    """Take each matrix apart into blocks of about a bit, and load as many as the memory holds.

    A block keeps the signs of what is left of the matrix, a bit each, and the best low-rank
    product for their sizes; what it misses goes into the next block. Inputs weigh the columns.
    The blocks of all layers lie on disk one by one, in the order in which they help the whole
    model, no layer more than one block ahead of another. Another budget reads further down the
    same list: nothing is compressed again.
    """

    stage = Stage.QUANTISE
    needs = Needs.NORMS
    paper = "arXiv 2410.23918"
    claim = "Matches or beats quantisation at extreme ratios; one artefact for every size."
    limits = "Factors weigh more in narrow matrices: 1.25 bits a block at 128, 1.06 at 4,096."
    yields = ("sum",)

    bits: float = setting(4.0, "Bits per weight, all blocks counted.", low=1.05, high=16.0)
    side: int = setting(
        256, "Length of the shorter side for each singular vector.", choices=(64, 128, 256, 512)
    )
    blocks: int = setting(16, "Most blocks of a matrix.", low=1, high=24)

    def stack(self, weight: Tensor, statistics: InputStatistics) -> list[Format]:
        """The blocks of a weight [rows, columns], each for what those before it miss."""
        rank = max(1, min(weight.shape) // self.side)
        scale = statistics.mean_squares.clamp(min=0).sqrt()
        scale = (scale / scale.mean().clamp(min=1e-30)).clamp(min=1e-3)
        left_over = weight * scale
        found: list[Format] = []
        for _ in range(self.blocks):
            left, right = leading(left_over.abs(), rank)
            block = formats.SignBlock.pack(left_over >= 0, left, right / scale)
            left_over = left_over - block.dense() * scale
            found.append(block)
        return found

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """As many blocks of a weight [rows, columns] as its own share of the budget holds."""
        stack = self.stack(weight, statistics)
        count = int(self.bits * weight.numel() / 8 + 1e-6) // stack[0].nbytes
        if count < 1:
            raise OutOfReachError(
                f"A block of a matrix {weight.shape[0]} x {weight.shape[1]} takes "
                f"{stack[0].bits:.2f} bits a weight, not {self.bits:g}; ask for more."
            )
        return _pile(stack[:count])


def _pile(blocks: list[Format]) -> Format:
    """What blocks stand for together."""
    return formats.Sum.of(**{f"block{index}": block for index, block in enumerate(blocks)})
