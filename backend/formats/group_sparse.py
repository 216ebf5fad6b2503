"""Kept groups of neighbours behind a bit a group: sparsity that costs little to point at.

A group is as many neighbouring columns of one row as share a scale. Those kept lie one after
another, whole, in a format of their own; a row's last group is filled up beyond the row's end.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty
from kernels import bitpack, masked, packed


class GroupSparse(Format):
    """One bit a group and the numbers of the kept groups, in whatever they are held in."""

    key = "group-sparse"
    mask: Tensor

    def __init__(self, rows: int, columns: int, *, group_size: int, values: Format) -> None:
        super().__init__(rows, columns)
        self.group_size = group_size
        width = bitpack.packed_columns(self.groups, 1)
        self.register_buffer("mask", empty(rows, width, dtype=torch.uint8))
        self.values = values

    @property
    def groups(self) -> int:
        """Groups in a row; the last may reach beyond its end."""
        return -(-self.columns // self.group_size)

    @classmethod
    def pack(cls, mask: Tensor, values: Format, columns: int) -> Self:
        """Hold the groups that a mask [rows, groups] keeps of a matrix with so many columns.

        Args:
            mask: true for a group that is kept.
            values: all of them in one row, row after row, [1, group size * kept].
            columns: of the matrix.
        """
        kept = int(mask.sum())
        held = cls(mask.shape[0], columns, group_size=values.columns // kept, values=values)
        held.mask = bitpack.pack_plane(mask.to(torch.uint8), 1)
        return held

    def settings(self) -> dict[str, Any]:
        """Columns of a group."""
        return {"group_size": self.group_size}

    def fitting(self) -> dict[str, tuple[int, int]]:
        """All values in one row."""
        return {"values": (1, self.values.columns)}

    def check(self) -> None:
        """There are as many values as the mask marks, none of them behind a row's end."""
        super().check()
        bits = bitpack.unpack_plane(self.mask, 1, 8 * self.mask.shape[1])
        marked = self.group_size * int(bits.sum())
        if marked != self.values.columns or bool(bits[:, self.groups :].any()):
            raise ValueError(f"A mask marks {marked:,} of {self.values.columns:,} values.")

    def kept(self) -> Tensor:
        """True for the groups that are held, [rows, groups]."""
        return bitpack.unpack_plane(self.mask, 1, self.groups).to(torch.bool)

    def matrix(self) -> packed.Matrix | None:
        """Mask and values where they lie."""
        return masked.groups(self.mask, self.columns, self.values.matrix(), self.group_size)

    def dense(self) -> Tensor:
        """The matrix in float32, zero where no group is kept."""
        values = self.values.dense().view(-1, self.group_size)
        whole = values.new_zeros(self.rows, self.groups, self.group_size)
        whole[self.kept()] = values
        return whole.flatten(1)[:, : self.columns]
