"""A linear layer whose weight is held in a format."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.formats import operation
from backend.formats.base import Format


class HeldLinear(nn.Module):
    """Takes the place of `nn.Linear` (or GPT-2's transposed one): y = x W^T + bias."""

    def __init__(self, held: Format, bias: Tensor | None = None) -> None:
        super().__init__()
        self.held = held
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.out_features, self.in_features = held.shape

    def forward(self, activation: Tensor) -> Tensor:
        """Activation [..., in_features] to [..., out_features]."""
        if torch.compiler.is_compiling() and operation.takes(self.held, activation):
            return operation.multiply(self.held, activation, self.bias)
        if self.bias is None:
            return self.held.multiply(activation)
        return self.held.affine(activation, self.bias)
