"""bfloat16 numbers, bit for bit, their exponents in codes of four bits (`kernels/window.py`)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty
from backend.formats.exact import Exact
from backend.formats.slotted_exact import SlottedExact
from kernels import window
from kernels.layout import Matrix


class WindowCoded(Exact):
    """12 bits an entry, a table of 15 exponents, and 80 bits for each entry with another."""

    key = "window-coded"
    rest: Tensor
    codes: Tensor
    table: Tensor
    apart_rows: Tensor
    apart_columns: Tensor
    apart_values: Tensor

    def __init__(self, rows: int, columns: int, apart: int) -> None:
        super().__init__(rows, columns)
        self.register_buffer("rest", empty(rows, columns, dtype=torch.uint8))
        self.register_buffer("codes", empty(rows, -(-columns // 2), dtype=torch.uint8))
        self.register_buffer("table", empty(16, dtype=torch.uint8))
        self.register_buffer("apart_rows", empty(apart, dtype=torch.int32))
        self.register_buffer("apart_columns", empty(apart, dtype=torch.int32))
        self.register_buffer("apart_values", empty(apart, dtype=torch.bfloat16))

    @classmethod
    def pack(cls, values: Tensor) -> Self:
        """Hold a matrix [rows, columns], bfloat16, of any bits."""
        found = window.encode(values)
        held = cls(*values.shape, len(found.rows))
        held.rest, held.codes, held.table = found.rest, found.codes, found.table
        held.apart_rows, held.apart_columns = found.rows, found.columns
        held.apart_values = found.values
        return held

    def settings(self) -> dict[str, Any]:
        """Entries beyond the table."""
        return {"apart": self.apart_rows.numel()}

    def check(self) -> None:
        """Entries apart lie inside, row after row, and no code stands for what is not finite."""
        inside = all(
            bool(((places >= 0) & (places < end)).all())
            for places, end in ((self.apart_rows, self.rows), (self.apart_columns, self.columns))
        )
        ordered = bool((self.apart_rows.diff() >= 0).all())
        if not inside or not ordered or bool((self.table == 255).any()):
            raise ValueError("Entries apart do not fit their matrix, or their table of exponents.")

    def exact(self) -> Tensor:
        """The matrix as it was, bfloat16."""
        return window.decode(self._parts())

    def matrix(self) -> Matrix | None:
        """All parts where they lie."""
        return self._parts().matrix()

    def slotted(self) -> Format:
        """Exponents that follow each other, in tiles, where that is no larger than 16 bits."""
        held = SlottedExact(self.exact())
        return held if held.nbytes < 2 * self.rows * self.columns else self

    def _parts(self) -> window.Parts:
        apart = self.apart_rows, self.apart_columns, self.apart_values
        return window.Parts(self.rest, self.codes, self.table, *apart)
