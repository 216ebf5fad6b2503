"""Codes that point into a table of values, one table for each row (non-uniform quantisation)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty
from backend.formats.integer import Planes
from backend.formats.slotted import SlottedTables
from kernels import packed


class ScalarCodebook(Format):
    """Codes of 1 to 8 bits and 2**bits values of 16 bits a row: 16 * 2**bits / columns on top."""

    key = "scalar-codebook"
    tables: Tensor

    def __init__(self, rows: int, columns: int, bits: int) -> None:
        super().__init__(rows, columns)
        self.code_bits = bits
        self.codes = Planes(rows, columns, bits)
        self.register_buffer("tables", empty(rows, 1 << bits, dtype=torch.bfloat16))

    @classmethod
    def pack(cls, codes: Tensor, tables: Tensor) -> Self:
        """Hold codes [rows, columns] into tables of values [rows, 2**bits]."""
        held = cls(*codes.shape, tables.shape[1].bit_length() - 1)
        held.codes.put(codes, held.code_bits)
        held.tables = tables.to(torch.bfloat16).contiguous()
        return held

    def settings(self) -> dict[str, Any]:
        """Bits of a code."""
        return {"bits": self.code_bits}

    def matrix(self) -> packed.Matrix | None:
        """Planes and tables where they lie."""
        return packed.codebook(self.codes.parts(), self.columns, self.tables)

    def slotted(self) -> Format:
        """Codes in words beside the tables."""
        return SlottedTables(self.codes.get(), self.tables)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        codes = self.codes.get().to(torch.int64)
        return self.tables.to(torch.float32).gather(1, codes)
