"""bfloat16 numbers as their exponents and all else, each a byte."""

from __future__ import annotations

import torch
from torch import Tensor


def taken_apart(values: Tensor) -> tuple[Tensor, Tensor]:
    """Exponents of bfloat16 numbers, and sign and mantissa, as bytes of the same shape."""
    bits = values.detach().contiguous().view(torch.int16).to(torch.int32) & 0xFFFF
    rest = ((bits >> 8) & 0x80) | (bits & 0x7F)
    return ((bits >> 7) & 0xFF).to(torch.uint8), rest.to(torch.uint8)


def joined(exponents: Tensor, rest: Tensor) -> Tensor:
    """Undo `taken_apart`."""
    rest = rest.to(torch.int32)
    bits = ((rest & 0x80) << 8) | (exponents.to(torch.int32) << 7) | (rest & 0x7F)
    return bits.to(torch.uint16).view(torch.bfloat16)
