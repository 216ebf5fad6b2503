"""A few entries kept apart, row after row: a value and a column each (compressed sparse rows)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty
from kernels import packed
from kernels.products import Product


class Outliers(Format):
    """Sparse entries of 16 bits with 16-bit columns and a 32-bit offset a row."""

    key = "outliers"
    values: Tensor
    positions: Tensor
    offsets: Tensor

    def __init__(self, rows: int, columns: int, count: int) -> None:
        super().__init__(rows, columns)
        if columns > 1 << 16:
            raise ValueError(f"Outliers reach 65,536 columns, not {columns:,}.")
        self.register_buffer("values", empty(count, dtype=torch.bfloat16))
        self.register_buffer("positions", empty(count, dtype=torch.uint16))
        self.register_buffer("offsets", empty(rows, dtype=torch.int32))

    @classmethod
    def pack(cls, weight: Tensor, mask: Tensor) -> Self:
        """Hold the entries of a weight [rows, columns] where `mask` is true."""
        held = cls(*weight.shape, int(mask.sum()))
        held.values = weight[mask].to(torch.bfloat16)
        held.positions = mask.nonzero()[:, 1].to(torch.uint16)
        held.offsets = mask.sum(1).cumsum(0).to(torch.int32)
        return held

    def check(self) -> None:
        """Rows end one after another within the entries, and entries lie within their row."""
        ends = [0, *self.offsets.tolist()]
        beyond = self.values.numel() and int(self.positions.to(torch.int64).max()) >= self.columns
        if ends != sorted(ends) or ends[-1] != self.values.numel() or beyond:
            raise ValueError(
                f"Entries of {self.rows:,} rows of {self.columns:,} columns do not fit them."
            )

    def settings(self) -> dict[str, Any]:
        """How many entries are held."""
        return {"count": self.values.numel()}

    def product(self) -> Product | None:
        """By the held entries alone."""
        return packed.outliers(self.values, self.positions, self.offsets, self.columns)

    def of(self, rows: Tensor) -> Outliers:
        """The entries of some rows alone, those where `rows` [rows] is true."""
        counts = torch.diff(self.offsets, prepend=self.offsets.new_zeros(1)).to(torch.int64)
        mine = rows.repeat_interleave(counts)
        held = Outliers(int(rows.sum()), self.columns, int(mine.sum()))
        held.values = self.values[mine]
        held.positions = self.positions.view(torch.int16)[mine].view(torch.uint16)
        held.offsets = counts[rows].cumsum(0).to(torch.int32)
        return held

    def dense(self) -> Tensor:
        """The matrix in float32, zero elsewhere."""
        counts = torch.diff(self.offsets, prepend=self.offsets.new_zeros(1)).to(torch.int64)
        row = torch.repeat_interleave(torch.arange(self.rows, device=counts.device), counts)
        dense = torch.zeros(self.rows, self.columns, device=counts.device)
        dense[row, self.positions.to(torch.int64)] = self.values.to(torch.float32)
        return dense
