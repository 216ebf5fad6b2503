"""A matrix held by its transpose, so that its columns are what the inner format calls rows."""

from __future__ import annotations

from typing import Self

from torch import Tensor
from torch.nn import functional

from backend.formats.base import Format
from kernels import packed
from kernels.decode_step import Product


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

    def product(self) -> Product | None:
        """Row after row of what is held, each times its own activation."""
        return packed.transposed(self.held.matrix())

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return self.held.dense().T

    def multiply(self, activation: Tensor) -> Tensor:
        """One product with the inner matrix made dense."""
        return functional.linear(activation, self.held.dense().to(activation.dtype).T)

    def packed(self) -> Format:
        """Itself: the layouts for products go along the other side."""
        return self
