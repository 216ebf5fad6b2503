"""Small floating-point codes in groups that share a scale: a sign, an exponent, a mantissa.

weight[n, k] = scale[n, group of k] * value of code[n, k]. An exponent field of 0 means a
subnormal, as in IEEE 754; no code is spent on infinity or NaN. The largest value is 1.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from backend.formats.base import Format
from backend.formats.dense import Dense
from backend.formats.integer import Planes
from backend.formats.table import OneTable


def values(exponent_bits: int, mantissa_bits: int) -> Tensor:
    """What each code from 0 on stands for, [2**(1 + exponent_bits + mantissa_bits)], float32.

    Codes of the upper half are the negatives of the lower half, in the same order.
    """
    code = torch.arange(1 << (exponent_bits + mantissa_bits))
    exponent = code >> mantissa_bits
    fraction = (code & ((1 << mantissa_bits) - 1)).to(torch.float64) / (1 << mantissa_bits)
    leading = (exponent > 0).to(torch.float64)
    size = (leading + fraction) * torch.exp2(exponent.clamp(min=1).to(torch.float64))
    size = (size / size.max()).to(torch.float32)
    return torch.cat([size, -size])


class FloatCodes(OneTable):
    """Codes of 2 to 8 bits split into sign, exponent and mantissa, a scale to each group."""

    key = "float-codes"

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        exponent_bits: int,
        mantissa_bits: int,
        group_size: int,
        scales: Format,
    ) -> None:
        super().__init__(rows, columns)
        self.exponent_bits, self.mantissa_bits = exponent_bits, mantissa_bits
        self.group_size = group_size
        self.codes = Planes(rows, columns, self.code_bits)
        self.scales = scales

    @property
    def code_bits(self) -> int:
        """Bits of a code, its sign counted."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @classmethod
    def pack(
        cls,
        codes: Tensor,
        scales: Tensor,
        *,
        exponent_bits: int,
        mantissa_bits: int,
        group_size: int,
    ) -> Self:
        """Hold codes [rows, columns] with scales [rows, groups], the size of the largest value."""
        held = cls(
            *codes.shape,
            exponent_bits=exponent_bits,
            mantissa_bits=mantissa_bits,
            group_size=group_size,
            scales=Dense.pack(scales),
        )
        held.codes.put(codes, held.code_bits)
        return held

    def settings(self) -> dict[str, Any]:
        """The split of a code and the size of a group."""
        return {
            "exponent_bits": self.exponent_bits,
            "mantissa_bits": self.mantissa_bits,
            "group_size": self.group_size,
        }

    def entries(self) -> Tensor:
        """The few values that codes of this kind can have."""
        points = values(self.exponent_bits, self.mantissa_bits)
        return points.to(next(self.codes.buffers()).device)
