"""A matrix held by its transpose, so that its columns are what the inner format calls rows."""

from __future__ import annotations

from typing import Self

from torch import Tensor

from backend.formats.base import Format
from backend.formats.rows import Rows
from backend.formats.slotted_signs import SlottedInputs, SlottedVectors
from backend.formats.sum import Sum
from backend.formats.vector import VectorCodebook
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

    def fitting(self) -> dict[str, tuple[int, int]]:
        """The other way round."""
        return {"held": (self.columns, self.rows)}

    def matrix(self) -> packed.Matrix | None:
        """The transpose of what is held, some rows at a time."""
        return packed.transposed(self.held.matrix())

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return self.held.dense().T

    def packed(self) -> Format:
        """Itself on a processor: the layouts for products go along the other side."""
        return self.slotted() if self.on_gpu else self

    def slotted(self) -> Format:
        """The transpose as an operation takes it: of vectors, and of sums and rows of them."""
        return _transpose(self.held) or self


def _transpose(held: Format) -> Format | None:
    """The transpose of what is held, as operations take it; None where none does."""
    if isinstance(held, VectorCodebook):
        parts = held.indices, held.codebook
        return SlottedVectors(held.columns, held.rows, *parts, transposed=True)
    if isinstance(held, Sum):
        terms = {name: _transpose(term) for name, term in held.inner().items()}
        known = {name: term for name, term in terms.items() if term is not None}
        return Sum.of(**known) if len(known) == len(terms) else None
    if isinstance(held, Rows):
        fine, coarse = _transpose(held.fine), _transpose(held.coarse)
        if fine is not None and coarse is not None:
            return SlottedInputs(held.fine_rows(), fine, coarse)
    return None
