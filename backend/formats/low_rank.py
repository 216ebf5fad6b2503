"""A product of two thin factors, each in a format of its own."""

from __future__ import annotations

from typing import Self

from torch import Tensor

from backend.formats.base import Format
from backend.formats.dense import Dense
from kernels import decode_step
from kernels.decode_step import Product


class LowRank(Format):
    """Left [rows, rank] times right [rank, columns]: 16 rank (1 / rows + 1 / columns) bits."""

    key = "low-rank"

    def __init__(self, rows: int, columns: int, left: Format, right: Format) -> None:
        super().__init__(rows, columns)
        self.left, self.right = left, right

    @classmethod
    def pack(cls, left: Tensor, right: Tensor) -> Self:
        """Hold the factors [rows, rank] and [rank, columns] in bfloat16."""
        return cls(left.shape[0], right.shape[1], Dense.pack(left), Dense.pack(right))

    @property
    def rank(self) -> int:
        """Width of the bottleneck."""
        return self.left.columns

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return self.left.dense() @ self.right.dense()

    def multiply(self, activation: Tensor) -> Tensor:
        """Two thin products."""
        return self.left.multiply(self.right.multiply(activation))

    def product(self) -> Product | None:
        """Two thin products."""
        return decode_step.chain(self.right.product(), self.left.product())

    def slotted(self) -> Format:
        """Its parts as operations take them."""
        return self._slot_parts()

    @property
    def speed(self) -> str:
        """Runs packed if both factors do."""
        both = (self.left.speed, self.right.speed)
        return "measured" if both == ("measured", "measured") else "emulated"
