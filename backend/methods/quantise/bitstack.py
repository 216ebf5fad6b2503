"""BitStack: weights as a stack of one-bit blocks, loaded as far as the memory goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.errors import OutOfReachError
from backend.methods.base import Needs, Outline, StackMethod, Stage, setting
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
    pace = 1.0
    paper = "arXiv 2410.23918"
    claim = "Matches or beats quantisation at extreme ratios; one artefact for every size."
    limits = "Factors weigh more in narrow matrices: 1.25 bits a block at 128, 1.06 at 4,096."
    yields = ("sum",)

    bits: float = setting(4.0, "Bits per weight, all blocks counted.", low=1.05, high=16.0)
    side: int = setting(
        256, "Length of the shorter side for each singular vector.", choices=(64, 128, 256, 512)
    )
    blocks: int = setting(16, "Most blocks of a matrix.", low=1, high=24)

    def outline(self, rows: int, columns: int) -> Outline:
        """As many blocks as a matrix's own share of the budget holds."""
        return Outline(self.count(rows, columns) * self.part_bytes(rows, columns))

    def part_bytes(self, rows: int, columns: int) -> int:
        """Signs, a bit each in whole bytes of a row, and two factors."""
        return rows * -(-columns // 8) + 2 * self.rank(rows, columns) * (rows + columns)

    def rank(self, rows: int, columns: int) -> int:
        """Singular vectors of a block."""
        return max(1, min(rows, columns) // self.side)

    def count(self, rows: int, columns: int) -> int:
        """Blocks that a matrix's own share of the budget holds.

        Raises:
            OutOfReachError: not one.
        """
        block = self.part_bytes(rows, columns)
        count = int(self.bits * rows * columns / 8 + 1e-6) // block
        if count < 1:
            raise OutOfReachError(
                f"A block of a matrix {rows} x {columns} takes "
                f"{8 * block / (rows * columns):.2f} bits a weight, not {self.bits:g}; ask for "
                "more."
            )
        return min(count, self.blocks)

    def stack(self, weight: Tensor, statistics: InputStatistics) -> list[Format]:
        """The blocks of a weight [rows, columns], each for what those before it miss."""
        rank = self.rank(*weight.shape)
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
        count = self.count(*weight.shape)
        return _pile(self.stack(weight, statistics)[:count])


def _pile(blocks: list[Format]) -> Format:
    """What blocks stand for together."""
    return formats.Sum.of(**{f"block{index}": block for index, block in enumerate(blocks)})
