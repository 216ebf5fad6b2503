"""What pruners share: a budget as a number of kept weights, and how they are held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.errors import OutOfReachError
from backend.later import torch
from backend.methods.base import LayerMethod, Outline, Stage, setting

if TYPE_CHECKING:
    from torch import Tensor

    from backend.formats import Format

PATTERNS = {"unstructured": (0, 0), "2:4": (2, 4), "4:8": (4, 8)}
PATTERN_BITS = 9.0  # half of the values and one bit a weight to tell which


@dataclass(frozen=True)
class Pruner(LayerMethod):
    """A method that leaves weights out; the rest is held behind a bitmask or as 2:4."""

    stage = Stage.SPARSIFY
    yields = ("bitmask-sparse", "sparse-2-4")

    bits: float = setting(
        9.0, "Bits per weight: one for the mask, 16 for each weight kept.", low=1.8, high=16.0
    )
    pattern: str = setting(
        "unstructured", "Which weights may go: any, or so many in a row.", choices=tuple(PATTERNS)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern != "unstructured" and self.bits < PATTERN_BITS:
            raise OutOfReachError(
                f"{self.key()} in the pattern {self.pattern} holds {PATTERN_BITS:g} bits per "
                f"number, not {self.bits:g}; ask for more, or take the unstructured pattern."
            )

    def outline(self, rows: int, columns: int) -> Outline:
        """The mask, and the kept values as one row, or as half of each row in 2:4."""
        keep, of = self.group(columns)
        if (keep, of) == (2, 4):
            return Outline(rows * -(-columns // 8), ((rows, columns // 2),))
        kept = rows * columns * keep // of if of else self.kept(rows, columns)
        return Outline(rows * -(-columns // 8), ((1, kept),), exact=bool(of))

    def remark(self, rows: int, columns: int) -> str:  # noqa: ARG002 - rows may be any number
        """That a matrix has no room for the pattern."""
        if self.pattern == "unstructured" or self.group(columns)[1]:
            return ""
        return f"8 does not divide {columns} columns; pruned unstructured, not {self.pattern}."

    def group(self, columns: int) -> tuple[int, int]:
        """How many weights stay of how many neighbours; (0, 0) where any may go.

        Rows of a pattern fill whole bytes of its mask, or it would take more than its 9 bits.
        """
        return PATTERNS[self.pattern] if columns % 8 == 0 else (0, 0)

    def kept(self, rows: int, columns: int) -> int:
        """How many weights of a matrix the budget keeps.

        Raises:
            OutOfReachError: the mask alone takes more.
        """
        mask_bits = rows * 8 * -(-columns // 8)
        spare = self.bits * rows * columns - mask_bits
        if spare < 0:
            raise OutOfReachError(
                f"The mask of a matrix {rows} x {columns} takes {mask_bits / rows / columns:.2f} "
                f"bits a weight, not {self.bits:g}; ask for more."
            )
        return min(rows * columns, int(spare // 16))

    def mask_of(self, scores: Tensor, per_row: bool) -> Tensor:
        """True for the weights to keep: those with the highest scores [rows, columns]."""
        rows, columns = scores.shape
        keep, of = self.group(columns)
        if of:
            return top_in_groups(scores, keep, of)
        kept = self.kept(rows, columns)
        if per_row:
            return top(scores, kept // rows)
        return top(scores.reshape(1, -1), kept).view(rows, columns)

    def held(self, weight: Tensor, mask: Tensor) -> Format:
        """The kept weights in the format of the pattern."""
        if self.group(weight.shape[1]) == (2, 4):
            return formats.Sparse24.pack(weight, mask)
        return formats.BitmaskSparse.pack(weight, mask)


def top(scores: Tensor, count: int) -> Tensor:
    """True for the `count` highest scores of each row."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter_(1, scores.topk(count, dim=1).indices, value=True)


def top_in_groups(scores: Tensor, keep: int, of: int) -> Tensor:
    """True for the `keep` highest scores in every `of` neighbours of a row."""
    return top(scores.reshape(-1, of), keep).view(scores.shape)
