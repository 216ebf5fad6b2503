"""Columns in two formats, told apart by one bit a column; the coarser have a scale each.

PTQ1.61 (arXiv 2502.13179) points at columns, not at weights: a bit a column is next to nothing.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty
from kernels import bitpack, masked, packed


class Columns(Format):
    """Some columns held finer, the others coarser and each times a number of its own."""

    key = "columns"
    mask: Tensor
    scales: Tensor

    def __init__(self, rows: int, columns: int, fine: Format, coarse: Format) -> None:
        super().__init__(rows, columns)
        width = bitpack.packed_columns(columns, 1)
        self.register_buffer("mask", empty(1, width, dtype=torch.uint8))
        self.register_buffer("scales", empty(coarse.columns, dtype=torch.bfloat16))
        self.fine, self.coarse = fine, coarse

    @classmethod
    def pack(cls, mask: Tensor, fine: Format, coarse: Format, scales: Tensor) -> Self:
        """Column i is the next of `fine` where mask[i], else the next of `coarse`, scaled.

        Args:
            mask: [columns].
            fine: [rows, number of true].
            coarse: [rows, number of false].
            scales: of the coarse columns, [number of false].
        """
        held = cls(fine.rows, mask.numel(), fine, coarse)
        held.mask = bitpack.pack_plane(mask.view(1, -1).to(torch.uint8), 1)
        held.scales = scales.to(torch.bfloat16)
        return held

    def fitting(self) -> dict[str, tuple[int, int]]:
        """All rows in both parts."""
        parts = {"fine": self.fine, "coarse": self.coarse}
        return {name: (self.rows, part.columns) for name, part in parts.items()}

    def check(self) -> None:
        """The mask marks as many columns as are held finer, and both parts have all rows."""
        super().check()
        marked = int(self.apart().sum())
        if (marked, self.columns - marked) != (self.fine.columns, self.coarse.columns):
            raise ValueError(
                f"A mask marks {marked:,} of {self.columns:,} columns, not those held."
            )

    def apart(self) -> Tensor:
        """True for the columns that are held finer, [columns]."""
        return bitpack.unpack_plane(self.mask, 1, self.columns).flatten().to(torch.bool)

    def matrix(self) -> packed.Matrix | None:
        """Both parts where they lie."""
        parts = self.fine.matrix(), self.coarse.matrix()
        return masked.columns(self.mask, *parts, self.scales)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        apart, whole = self.apart(), torch.empty(self.shape, device=self.scales.device)
        whole[:, apart] = self.fine.dense()
        whole[:, ~apart] = self.coarse.dense() * self.scales.to(torch.float32)
        return whole
