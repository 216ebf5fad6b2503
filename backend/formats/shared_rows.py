"""A table most of whose rows are one and the same: the rows kept, and one for all the others."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty, reordered
from backend.formats.dense import Dense
from kernels import bitpack, products
from kernels.products import Product


class SharedRows(Format):
    """The rows kept and one more, in a format of their own, and a bit a row to tell which."""

    key = "shared-rows"
    mask: Tensor

    def __init__(self, rows: int, columns: int, table: Format) -> None:
        super().__init__(rows, columns)
        self.register_buffer("mask", empty(1, bitpack.packed_columns(rows, 1), dtype=torch.uint8))
        self.table = table

    @classmethod
    def pack(cls, weight: Tensor, mask: Tensor, shared: Tensor) -> Self:
        """Hold the rows of a weight [rows, columns] where `mask` is true, `shared` for the rest."""
        table = torch.cat([weight[mask], shared.to(weight.dtype).unsqueeze(0)])
        held = cls(*weight.shape, Dense.pack(table))
        held.mask = bitpack.pack_plane(mask.view(1, -1).to(torch.uint8), 1)
        return held

    def _places(self) -> Tensor:
        """Which row of the table stands for each row."""
        mask = bitpack.unpack_plane(self.mask, 1, self.rows).flatten().to(torch.int64)
        return torch.where(mask == 1, mask.cumsum(0) - 1, self.table.rows - 1)

    def fitting(self) -> dict[str, tuple[int, int]]:
        """All columns in the table."""
        return {"table": (self.table.rows, self.columns)}

    def check(self) -> None:
        """The mask marks as many rows as have one of their own."""
        super().check()
        marked = int(bitpack.unpack_plane(self.mask, 1, self.rows).sum())
        if marked != self.table.rows - 1:
            raise ValueError(f"A mask marks {marked:,} rows; {self.table.rows - 1:,} are held.")

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return self.table.dense()[self._places()]

    def take(self, rows: Tensor) -> Tensor:
        """Some rows, by way of the table."""
        return self.table.take(self._places()[rows])

    def multiply(self, activation: Tensor) -> Tensor:
        """One product with the table, whose outputs are then handed to their rows."""
        return reordered(self.table.multiply(activation), self._places())

    def product(self) -> Product | None:
        """As above, in a decode step."""
        return products.placed(self._places(), self.table.product())

    def slotted(self) -> Format:
        """Its parts as operations take them."""
        return self._slot_parts()

    @property
    def speed(self) -> str:
        """Runs as the table does."""
        return self.table.speed
