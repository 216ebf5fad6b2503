"""A matrix held as it is, in one floating-point type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from backend.formats.base import Format, empty
from kernels import packed


class Dense(Format):
    """Every entry in a floating-point type: 16 bits each in bfloat16."""

    key = "dense"
    values: Tensor

    def __init__(self, rows: int, columns: int, dtype: str = "bfloat16") -> None:
        super().__init__(rows, columns)
        self.register_buffer("values", empty(rows, columns, dtype=getattr(torch, dtype)))

    @classmethod
    def pack(cls, weight: Tensor, dtype: torch.dtype = torch.bfloat16) -> Self:
        """Hold a weight [rows, columns] rounded to `dtype`."""
        held = cls(weight.shape[0], weight.shape[1], str(dtype).removeprefix("torch."))
        held.values = weight.detach().to(dtype).contiguous()
        return held

    def settings(self) -> dict[str, Any]:
        """The type of the entries."""
        return {"dtype": str(self.values.dtype).removeprefix("torch.")}

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return self.values.to(torch.float32)

    def multiply(self, activation: Tensor) -> Tensor:
        """One product of torch."""
        return functional.linear(activation, self.values.to(activation.dtype))

    def take(self, rows: Tensor) -> Tensor:
        """Some rows, nothing else of the matrix read."""
        return self.values[rows].to(torch.float32)

    def matrix(self) -> packed.Matrix | None:
        """As it lies."""
        return packed.dense(self.values)

    @property
    def speed(self) -> str:
        """Runs as it lies."""
        return "measured"

    def dense_leaves(self) -> Iterator[Format]:
        """Itself."""
        yield self
