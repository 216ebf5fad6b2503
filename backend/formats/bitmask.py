"""Kept entries behind a bitmask: any pattern of zeros, one bit an entry for the pattern."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty
from backend.formats.dense import Dense
from backend.formats.slotted import SlottedMask
from backend.formats.sparse import Sparse
from kernels import bitmask, bitpack, packed


class BitmaskSparse(Sparse):
    """One bit an entry and the kept values one after another: 1 + 16 (1 - sparsity) bits."""

    key = "bitmask-sparse"
    mask: Tensor

    def __init__(self, rows: int, columns: int, values: Format) -> None:
        super().__init__(rows, columns)
        width = bitpack.packed_columns(columns, 1)
        self.register_buffer("mask", empty(rows, width, dtype=torch.uint8))
        self.values = values

    @classmethod
    def pack(cls, weight: Tensor, mask: Tensor | None = None) -> Self:
        """Hold a weight [rows, columns] where `mask` is true (default: where it is not zero)."""
        mask = weight != 0 if mask is None else mask
        packed, values = bitmask.compact(weight, mask)
        held = cls(*weight.shape, Dense.pack(values.unsqueeze(0)))
        held.mask = packed
        return held

    def check(self) -> None:
        """There are as many values as the mask marks, none of them behind a row's end."""
        super().check()
        bits = bitpack.unpack_plane(self.mask, 1, 8 * self.mask.shape[1])
        marked = int(bits.sum())
        if marked != self.values.columns or bool(bits[:, self.columns :].any()):
            raise ValueError(f"A mask marks {marked:,} of {self.values.columns:,} values.")

    def fitting(self) -> dict[str, tuple[int, int]]:
        """All values in one row."""
        return {"values": (1, self.values.columns)}

    def matrix(self) -> packed.Matrix | None:
        """Mask and values where they lie."""
        return packed.bitmask(self.mask, self.columns, self.values.matrix())

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return bitmask.expand(self.mask, self.values.dense().flatten(), self.columns)

    def slotted(self) -> Format:
        """Bits in words, and the values in the order of these."""
        if not isinstance(self.values, Dense):
            return self
        weight = bitmask.expand(self.mask, self.values.values.flatten(), self.columns)
        return SlottedMask(weight, self.kept())

    def kept(self) -> Tensor:
        """The mask, one entry each."""
        return bitpack.unpack_plane(self.mask, 1, self.columns).to(torch.bool)
