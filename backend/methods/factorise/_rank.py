"""What factorisers share: a budget as a rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.errors import OutOfReachError
from backend.methods.base import LayerMethod, Outline, Stage, setting

if TYPE_CHECKING:
    from torch import Tensor

    from backend.formats import Format


@dataclass(frozen=True)
class Factoriser(LayerMethod):
    """A method that holds a matrix as two thin factors."""

    stage = Stage.FACTOR
    yields = ("low-rank", "dense")

    bits: float = setting(
        8.0, "Bits per number of the matrix, both factors counted.", low=0.5, high=16.0
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Two factors, or the matrix itself where nothing is saved."""
        if self.bits >= 16:
            return Outline(leaves=((rows, columns),))
        rank = rank_of(rows, columns, self.bits)
        return Outline(leaves=((rows, rank), (rank, columns)))


def rank_of(rows: int, columns: int, bits: float) -> int:
    """The rank whose two bfloat16 factors take `bits` bits per number of [rows, columns].

    Raises:
        OutOfReachError: not even rank one fits.
    """
    rank = int(bits * rows * columns / 16 // (rows + columns))
    if rank < 1:
        least = 16 * (rows + columns) / (rows * columns)
        raise OutOfReachError(
            f"Factors of a matrix {rows} x {columns} take {least:.2f} bits per number or more, "
            f"not {bits:g}."
        )
    return rank


def hold(weight: Tensor, left: Tensor, right: Tensor, bits: float) -> Format:
    """The factors, or the weight itself where it takes no more than they would."""
    if bits >= 16:
        return formats.Dense.pack(weight)
    return formats.LowRank.pack(left, right)
