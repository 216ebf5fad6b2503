"""Two block-diagonal factors between permutations (Monarch, arXiv 2204.00595)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from backend.formats.base import Format
from backend.formats.dense import Dense
from kernels import packed, products
from kernels.products import Product


class Monarch(Format):
    """M = P L P^T R, with L and R block-diagonal and P a permutation.

    Blocks of R read neighbouring columns, each of `outputs` blocks of L writes every
    `outputs`-th row, and reads as many numbers, the rank, from every block of R. This takes
    rank (outputs / rows + inputs / columns) numbers a weight; one block on both sides is a
    product of two thin factors.
    """

    key = "monarch"

    def __init__(
        self, rows: int, columns: int, left: Format, right: Format, *, inputs: int, outputs: int
    ) -> None:
        super().__init__(rows, columns)
        if min(inputs, outputs) < 1 or columns % inputs or rows % outputs or left.columns % inputs:
            raise ValueError(
                f"A matrix {rows} x {columns} has no {outputs} x {inputs} blocks of one size."
            )
        self.left, self.right = left, right
        self.inputs, self.outputs = inputs, outputs

    @classmethod
    def pack(cls, left: Tensor, right: Tensor) -> Self:
        """Hold the blocks of both factors in bfloat16.

        Args:
            left: [outputs, rows / outputs, inputs, rank].
            right: [inputs, outputs, rank, columns / inputs].
        """
        outputs, tall, inputs, rank = left.shape
        wide = right.shape[3]
        parts = left.reshape(outputs * tall, inputs * rank), right.reshape(-1, wide)
        held = map(Dense.pack, parts)
        return cls(outputs * tall, inputs * wide, *held, inputs=inputs, outputs=outputs)

    def settings(self) -> dict[str, Any]:
        """Blocks of either side."""
        return {"inputs": self.inputs, "outputs": self.outputs}

    @property
    def rank(self) -> int:
        """Numbers that an output block reads from an input block."""
        return self.left.columns // self.inputs

    def fitting(self) -> dict[str, tuple[int, int]]:
        """Blocks of both factors that meet."""
        tall = self.outputs * self.inputs * self.rank
        wide = self.columns // self.inputs
        return {"left": (self.rows, self.inputs * self.rank), "right": (tall, wide)}

    def factors(self) -> tuple[Tensor, Tensor]:
        """Left [outputs, rows / outputs, inputs * rank] and right [inputs, ..., columns / inputs].

        The middle of the right one is outputs * rank.
        """
        left = self.left.dense().view(self.outputs, -1, self.inputs * self.rank)
        return left, self.right.dense().view(self.inputs, self.outputs * self.rank, -1)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        left, right = self.factors()
        left = left.view(self.outputs, -1, self.inputs, self.rank)
        right = right.view(self.inputs, self.outputs, self.rank, -1)
        return torch.einsum("oriq,ioqc->roic", left, right).reshape(self.shape)

    def multiply(self, activation: Tensor) -> Tensor:
        """Two products block by block, the numbers handed across between them."""
        left, right = (part.to(activation.dtype) for part in self.factors())
        flat = activation.reshape(-1, self.inputs, self.columns // self.inputs)
        inner = torch.bmm(flat.transpose(0, 1), right.mT)  # [inputs, tokens, outputs * rank]
        inner = inner.view(self.inputs, -1, self.outputs, self.rank).permute(2, 1, 0, 3)
        found = torch.bmm(inner.flatten(2), left.mT)  # [outputs, tokens, rows / outputs]
        return found.permute(1, 2, 0).reshape(*activation.shape[:-1], self.rows)

    def product(self) -> Product | None:
        """As above, in a decode step."""
        handed = packed.blocks(self.right.matrix(), self.inputs, self.rank)
        return products.chain(handed, packed.blocks(self.left.matrix(), self.outputs, 1))

    @property
    def speed(self) -> str:
        """Runs block by block as it lies, but for factors in formats that no step reads apart."""
        dense = all(isinstance(part, Dense) for part in self.inner().values())
        return "measured" if dense else super().speed
