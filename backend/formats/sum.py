"""A matrix held as a sum of others of its shape: SpQR's outliers, EoRA's correction."""

from __future__ import annotations

from functools import reduce
from typing import Any, Self

from torch import Tensor

from backend.formats.base import Format
from kernels import decode_step, packed
from kernels.decode_step import Product


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
        return decode_step.total(*(term.product() for term in self.inner().values()))

    @property
    def speed(self) -> str:
        """Runs packed if every term does."""
        every = all(term.speed == "measured" for term in self.inner().values())
        return "measured" if every else "emulated"
