"""What formats share that keep every bit of bfloat16 numbers."""

from __future__ import annotations

import abc

import torch
from torch import Tensor
from torch.nn import functional

from backend.formats.base import Format


class Exact(Format):
    """Numbers in bfloat16, bit for bit; one at a time is decoded when it is multiplied.

    Outside of a step in one call, products are those of the dense matrix, to the bit.
    """

    @abc.abstractmethod
    def exact(self) -> Tensor:
        """The matrix as it was, bfloat16."""

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return self.exact().to(torch.float32)

    def multiply(self, activation: Tensor) -> Tensor:
        """Decode, then one product of torch: to the bit what the dense matrix gives."""
        return functional.linear(activation, self._weight(activation.dtype))

    def affine(self, activation: Tensor, bias: Tensor) -> Tensor:
        """The same with a bias, added before the sum is rounded, as in a dense layer."""
        dtype = activation.dtype
        return functional.linear(activation, self._weight(dtype), bias.to(dtype))

    def _weight(self, dtype: torch.dtype) -> Tensor:
        matrix = self.lying()
        return (self.exact() if matrix is None else matrix.dense()).to(dtype)
