"""Rows in two formats, told apart by one bit a row: how a budget between two levels is met."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from backend.formats.base import FEW, Format, empty, reordered
from kernels import bitpack, packed, products
from kernels.products import Product


class Rows(Format):
    """Some rows held finer, the others coarser."""

    key = "rows"
    mask: Tensor

    def __init__(self, rows: int, columns: int, fine: Format, coarse: Format) -> None:
        super().__init__(rows, columns)
        self.register_buffer("mask", empty(1, bitpack.packed_columns(rows, 1), dtype=torch.uint8))
        self.fine, self.coarse = fine, coarse

    @classmethod
    def pack(cls, mask: Tensor, fine: Format, coarse: Format) -> Self:
        """Row i of the matrix is the next row of `fine` where mask[i], else of `coarse`."""
        held = cls(mask.numel(), fine.columns, fine, coarse)
        held.mask = bitpack.pack_plane(mask.view(1, -1).to(torch.uint8), 1)
        return held

    def fitting(self) -> dict[str, tuple[int, int]]:
        """All columns in both parts."""
        parts = {"fine": self.fine, "coarse": self.coarse}
        return {name: (part.rows, self.columns) for name, part in parts.items()}

    def check(self) -> None:
        """The mask marks as many rows as are held finer, and both parts have all columns."""
        super().check()
        marked = int(bitpack.unpack_plane(self.mask, 1, self.rows).sum())
        if (marked, self.rows - marked) != (self.fine.rows, self.coarse.rows):
            raise ValueError(f"A mask marks {marked:,} of {self.rows:,} rows, not those held.")

    def fine_rows(self) -> Tensor:
        """True for the rows that are held finer, [rows]."""
        return bitpack.unpack_plane(self.mask, 1, self.rows).flatten().to(torch.bool)

    def _order(self) -> Tensor:
        mask = self.fine_rows()
        stacked = torch.cat([mask.nonzero(), (~mask).nonzero()]).flatten()
        return torch.empty_like(stacked).scatter_(
            0, stacked, torch.arange(self.rows, device=stacked.device)
        )

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return torch.cat([self.fine.dense(), self.coarse.dense()])[self._order()]

    def take(self, rows: Tensor) -> Tensor:
        """Some rows, from either part by their places in it."""
        if rows.device.type == "cpu" and self.lying() is not None:
            return super().take(rows)
        mask = self.fine_rows()
        fine, coarse = (
            part.take((marks.cumsum(0) - 1)[rows].clamp(min=0))
            for part, marks in ((self.fine, mask), (self.coarse, ~mask))
        )
        return torch.where(mask[rows].unsqueeze(1), fine, coarse)

    def multiply(self, activation: Tensor) -> Tensor:
        """Two products, their outputs put in order; of many on the processor one, of dense rows."""
        here = activation.device.type == "cpu"
        if here and (activation.numel() > FEW * self.columns or self.lying() is not None):
            return super().multiply(activation)
        outputs = self.fine.multiply(activation), self.coarse.multiply(activation)
        return reordered(torch.cat(outputs, dim=-1), self._order())

    def matrix(self) -> packed.Matrix | None:
        """Both halves where they lie."""
        fine, coarse = self.fine.matrix(), self.coarse.matrix()
        return packed.mixed(self.mask, self.rows, fine, coarse)

    def product(self) -> Product | None:
        """Two products, their outputs put in their places."""
        return products.placed(self._order(), self.fine.product(), self.coarse.product())

    def slotted(self) -> Format:
        """Its parts as operations take them."""
        return self._slot_parts()

    @property
    def speed(self) -> str:
        """Runs packed if both halves do."""
        both = (self.fine.speed, self.coarse.speed)
        return "measured" if both == ("measured", "measured") else "emulated"
