"""A matrix held by its transpose, so that its columns are what the inner format calls rows."""

from __future__ import annotations

from typing import Self

from torch import Tensor

from backend.formats.base import Format
from kernels import packed


class Transposed(Format):
    """[rows, columns] as an inner format of [columns, rows]; takes what that takes."""

    key = "transposed"

    def __init__(self, rows: int, columns: int, held: Format) -> None:
        super().__init__(rows, columns)
        self.held = held

    @classmethod
    def of(cls, held: Format) -> Self:
        """The transpose of what is held."""
        return cls(held.columns, held.rows, held)

    def matrix(self) -> packed.Matrix | None:
        """The transpose of what is held, some rows at a time."""
        return packed.transposed(self.held.matrix())

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return self.held.dense().T

    def packed(self) -> Format:
        """Itself: the layouts for products go along the other side."""
        return self
