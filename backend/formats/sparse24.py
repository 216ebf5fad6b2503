"""Two kept of every four neighbours (N:M with N = 2, M = 4), values in any format."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty
from backend.formats.dense import Dense
from backend.formats.slotted import SlottedFours
from backend.formats.sparse import Sparse
from kernels import bitpack, packed, sparse24


class Sparse24(Sparse):
    """Values [rows, columns / 2] and two bits of position for each: 9 bits an entry in bf16."""

    key = "sparse-2-4"
    positions: Tensor

    def __init__(self, rows: int, columns: int, values: Format) -> None:
        super().__init__(rows, columns)
        width = bitpack.packed_columns(columns // 2, 2)
        self.register_buffer("positions", empty(rows, width, dtype=torch.uint8))
        self.values = values

    @classmethod
    def pack(cls, weight: Tensor, mask: Tensor) -> Self:
        """Hold a weight [rows, columns] of which `mask` keeps two in every four."""
        values, positions = sparse24.compact(weight, mask)
        held = cls(*weight.shape, Dense.pack(values))
        held.positions = positions
        return held

    def fitting(self) -> dict[str, tuple[int, int]]:
        """A value for every other column."""
        return {"values": (self.rows, self.columns // 2)}

    def check(self) -> None:
        """Two different places of every four, in order, and a value for each."""
        super().check()
        places = bitpack.unpack_plane(self.positions, 2, self.columns // 2)
        if self.columns % 4 or bool((places[:, ::2] >= places[:, 1::2]).any()):
            raise ValueError("Values and their places do not fit two of every four, in order.")

    def matrix(self) -> packed.Matrix | None:
        """Positions and values where they lie."""
        return packed.two_of_four(self.positions, self.values.matrix())

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return sparse24.expand(self.values.dense(), self.positions)

    def slotted(self) -> Format:
        """The first of all fours, then the second, and which they are in words."""
        if not isinstance(self.values, Dense):
            return self
        weight = sparse24.expand(self.values.values, self.positions)
        return SlottedFours(weight, self.kept())

    def kept(self) -> Tensor:
        """True at two of every four places."""
        ones = torch.ones(self.values.shape, device=self.positions.device)
        return sparse24.expand(ones, self.positions).to(torch.bool)
