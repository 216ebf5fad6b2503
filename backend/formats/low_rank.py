"""A product of two thin factors, each in a format of its own."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty
from backend.formats.dense import Dense
from kernels import products
from kernels.products import Product


class LowRank(Format):
    """Left [rows, rank] times right [rank, columns]: 16 rank (1 / rows + 1 / columns) bits.

    May hold a shift [rows] as well, which every product gets added: what the outputs that no
    factor reaches say on average. It is no part of the matrix.
    """

    key = "low-rank"
    shift: Tensor

    def __init__(
        self, rows: int, columns: int, left: Format, right: Format, *, shifted: bool = False
    ) -> None:
        super().__init__(rows, columns)
        self.left, self.right, self.shifted = left, right, shifted
        if shifted:
            self.register_buffer("shift", empty(rows, dtype=torch.bfloat16))

    @classmethod
    def pack(cls, left: Tensor, right: Tensor, shift: Tensor | None = None) -> Self:
        """Hold the factors [rows, rank] and [rank, columns], and a shift [rows], in bfloat16."""
        parts = Dense.pack(left), Dense.pack(right)
        held = cls(left.shape[0], right.shape[1], *parts, shifted=shift is not None)
        if shift is not None:
            held.shift = shift.to(torch.bfloat16)
        return held

    def settings(self) -> dict[str, Any]:
        """Whether a shift is added, where one is."""
        return {"shifted": True} if self.shifted else {}

    @property
    def rank(self) -> int:
        """Width of the bottleneck."""
        return self.left.columns

    def fitting(self) -> dict[str, tuple[int, int]]:
        """Factors that meet, as tall and as wide as the product."""
        rank = self.left.columns
        return {"left": (self.rows, rank), "right": (rank, self.columns)}

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return self.left.dense() @ self.right.dense()

    def multiply(self, activation: Tensor) -> Tensor:
        """Two thin products, and the shift."""
        found = self.left.multiply(self.right.multiply(activation))
        return found + self.shift.to(found.dtype) if self.shifted else found

    def product(self) -> Product | None:
        """Two thin products, and the shift."""
        found = products.chain(self.right.product(), self.left.product())
        return found.plus(self.shift) if self.shifted and found is not None else found

    def slotted(self) -> Format:
        """Its parts as operations take them."""
        return self._slot_parts()

    @property
    def speed(self) -> str:
        """Runs packed if both factors do."""
        both = (self.left.speed, self.right.speed)
        return "measured" if both == ("measured", "measured") else "emulated"
