"""Signs of one bit an entry times a product of two thin factors: one block of BitStack."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty
from backend.formats.dense import Dense
from backend.formats.slotted_signs import SlottedSigns
from kernels import bitpack, packed


class SignBlock(Format):
    """sign[n, k] * (left @ right)[n, k]: 1 + 16 rank (1 / rows + 1 / columns) bits."""

    key = "sign-block"
    signs: Tensor

    def __init__(self, rows: int, columns: int, left: Format, right: Format) -> None:
        super().__init__(rows, columns)
        width = bitpack.packed_columns(columns, 1)
        self.register_buffer("signs", empty(rows, width, dtype=torch.uint8))
        self.left, self.right = left, right

    @classmethod
    def pack(cls, positive: Tensor, left: Tensor, right: Tensor) -> Self:
        """Hold where the sign is positive [rows, columns], and factors of the sizes."""
        held = cls(*positive.shape, Dense.pack(left), Dense.pack(right))
        held.signs = bitpack.pack_plane(positive.to(torch.uint8), 1)
        return held

    def matrix(self) -> packed.Matrix | None:
        """Signs and factors where they lie."""
        return packed.signs(self.signs, self.left.matrix(), self.right.matrix())

    def slotted(self) -> Format:
        """Signs in words beside the factors."""
        if not (isinstance(self.left, Dense) and isinstance(self.right, Dense)):
            return self
        positive = bitpack.unpack_plane(self.signs, 1, self.columns)
        return SlottedSigns(positive, self.left.values, self.right.values)

    def fitting(self) -> dict[str, tuple[int, int]]:
        """Factors that meet, as tall and as wide as the product."""
        rank = self.left.columns
        return {"left": (self.rows, rank), "right": (rank, self.columns)}

    def dense(self) -> Tensor:
        """The matrix in float32."""
        positive = bitpack.unpack_plane(self.signs, 1, self.columns).to(torch.bool)
        sizes = self.left.dense() @ self.right.dense()
        return torch.where(positive, sizes, -sizes)
