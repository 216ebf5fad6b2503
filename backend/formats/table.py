"""Codes into one table for the whole matrix, in groups that share a scale.

weight[n, k] = scale[n, group of k] * table[code[n, k]]
"""

from __future__ import annotations

import abc
import math
from typing import Any, Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty
from backend.formats.dense import Dense
from backend.formats.integer import Planes
from backend.formats.slotted import SlottedTables
from kernels import packed, wna16_mm


class OneTable(Format):
    """What is held as codes of `codes` into `entries`, times `scales` [rows, groups]."""

    codes: Planes
    scales: Format
    group_size: int

    @abc.abstractmethod
    def entries(self) -> Tensor:
        """What a code stands for, [2**bits], float32."""

    def fitting(self) -> dict[str, tuple[int, int]]:
        """A scale to each group."""
        return {"scales": (self.rows, -(-self.columns // self.group_size))}

    def matrix(self) -> packed.Matrix | None:
        """Planes and scales where they lie, beside the table."""
        scales = self.scales.matrix()
        if scales is None:
            return None
        entries = self.entries()
        given = self.codes.parts(), self.columns
        if even := _even(entries):
            unit, middle = even
            return packed.integers(
                *given, scales, middle=middle, unit=unit, group_size=self.group_size
            )
        table = entries.view(-1, 1)
        return packed.codebook(*given, table, scales=scales, group_size=self.group_size)

    def slotted(self) -> Format:
        """Codes in words beside the table, where groups of this size fill them."""
        if not isinstance(self.scales, Dense):
            return self
        table = self.entries().to(torch.bfloat16).unsqueeze(0)
        if not torch.equal(table[0].to(torch.float32), self.entries()):
            table = self.entries().unsqueeze(0)
        try:
            return SlottedTables(self.codes.get(), table, self.scales, self.group_size)
        except ValueError:  # groups of another size: no operation, so it is made dense
            return self

    def dense(self) -> Tensor:
        """The matrix in float32."""
        points = self.entries().index_select(0, self.codes.get().flatten().to(torch.int64))
        return wna16_mm.scaled(points.view(self.shape), self.scales.dense(), self.group_size)


class TableCodes(OneTable):
    """Codes of 1 to 8 bits, 16 bits a group, and 2**bits values of 16 bits in all."""

    key = "table-codes"
    table: Tensor

    def __init__(
        self, rows: int, columns: int, *, bits: int, group_size: int, scales: Format
    ) -> None:
        super().__init__(rows, columns)
        self.code_bits, self.group_size = bits, group_size
        self.codes = Planes(rows, columns, bits)
        self.register_buffer("table", empty(1 << bits, dtype=torch.bfloat16))
        self.scales = scales

    @classmethod
    def pack(cls, codes: Tensor, table: Tensor, scales: Tensor, group_size: int) -> Self:
        """Hold codes [rows, columns] into a table [2**bits], with scales [rows, groups]."""
        bits = table.numel().bit_length() - 1
        held = cls(*codes.shape, bits=bits, group_size=group_size, scales=Dense.pack(scales))
        held.codes.put(codes, bits)
        held.table = table.to(torch.bfloat16)
        return held

    def settings(self) -> dict[str, Any]:
        """Bits of a code and the size of a group."""
        return {"bits": self.code_bits, "group_size": self.group_size}

    def entries(self) -> Tensor:
        """The table in float32."""
        return self.table.to(torch.float32)


def _even(entries: Tensor) -> tuple[float, float] | None:
    """Unit and middle of entries (code - middle) * unit; None unless that loses nothing.

    It does not where the unit is a power of two.
    """
    first, unit = float(entries[0]), float(entries[-1] - entries[0]) / (len(entries) - 1)
    if math.frexp(unit)[0] != 0.5:
        return None
    middle = -first / unit
    codes = torch.arange(len(entries), device=entries.device)
    return (unit, middle) if torch.equal((codes - middle) * unit, entries) else None
