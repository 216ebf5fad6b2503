"""A matrix held as a sum of others of its shape: SpQR's outliers, EoRA's correction."""

from __future__ import annotations

from functools import reduce
from typing import Any, Self

from torch import Tensor

from backend.formats.base import Format
from backend.formats.outliers import Outliers
from backend.formats.rows import Rows
from backend.formats.slotted import SlottedGroups, SlottedTables, SlottedWithOutliers
from kernels import packed, products
from kernels.products import Product


class Sum(Format):
    """The terms are added; each is held in its own format."""

    key = "sum"

    def __init__(self, rows: int, columns: int, **terms: Format) -> None:
        super().__init__(rows, columns)
        for name, term in terms.items():
            self.add_module(name, term)

    @classmethod
    def of(cls, **terms: Format) -> Self:
        """Sum of named terms, all of one shape."""
        shapes = {term.shape for term in terms.values()}
        if len(shapes) != 1:
            raise ValueError(f"Terms of a sum have one shape, not {sorted(shapes)}.")
        return cls(*shapes.pop(), **terms)

    @classmethod
    def build(
        cls, rows: int, columns: int, settings: dict[str, Any], inner: dict[str, Format]
    ) -> Self:
        """An empty one of these terms."""
        return cls(rows, columns, **settings, **inner)

    def fitting(self) -> dict[str, tuple[int, int]]:
        """Terms of one shape."""
        return dict.fromkeys(self.inner(), self.shape)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        first, *rest = self.inner().values()
        total = first.dense()
        for term in rest:
            total = total + term.dense()
        return total

    def multiply(self, activation: Tensor) -> Tensor:
        """Products of the terms, added."""
        first, *rest = self.inner().values()
        total = first.multiply(activation)
        for term in rest:
            total = total + term.multiply(activation)
        return total

    def matrix(self) -> packed.Matrix | None:
        """The terms where they lie, for a format that is made of sums."""
        return reduce(packed.total, (term.matrix() for term in self.inner().values()))

    def product(self) -> Product | None:
        """Products of the terms, added."""
        return products.total(*(term.product() for term in self.inner().values()))

    def slotted(self) -> Format:
        """Its terms as operations take them, codes and the entries kept apart in one."""
        terms = self._slot_parts().inner()
        apart = [name for name, one in terms.items() if isinstance(one, Outliers)]
        for name, term in terms.items():
            if apart and (joined := _joined(term, terms[apart[0]])) is not None:
                setattr(self, name, joined)
                delattr(self, apart.pop(0))
        (first, *rest) = self.inner().values()
        return self if rest else first

    @property
    def speed(self) -> str:
        """Runs packed if every term does."""
        every = all(term.speed == "measured" for term in self.inner().values())
        return "measured" if every else "emulated"


def _joined(held: Format, apart: Outliers) -> Format | None:
    """Codes with the entries kept apart of their rows; None where no operation takes both."""
    if isinstance(held, SlottedGroups | SlottedTables):
        return SlottedWithOutliers(held, apart)
    if not isinstance(held, Rows):
        return None
    fine = held.fine_rows()
    halves = _joined(held.fine, apart.of(fine)), _joined(held.coarse, apart.of(~fine))
    if halves[0] is None or halves[1] is None:
        return None
    held.fine, held.coarse = halves
    return held
