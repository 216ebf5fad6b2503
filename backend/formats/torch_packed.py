"""Integer weights in the layouts of torch's own packed CPU products; made at load, never saved."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from backend.formats.base import Format, empty
from kernels import wna16_mm


class Int8Rows(Format):
    """Signed bytes with one scale a row, as torch's 8-bit product reads them."""

    key = "int8-rows"
    codes: Tensor
    scales: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(rows, columns)
        self.register_buffer("codes", empty(rows, columns, dtype=torch.int8))
        self.register_buffer("scales", empty(rows, dtype=torch.bfloat16))

    @classmethod
    def pack(cls, codes: Tensor, scales: Tensor) -> Self:
        """Hold codes [rows, columns], int8, and scales [rows], bfloat16."""
        held = cls(*codes.shape)
        held.codes, held.scales = codes.contiguous(), scales.contiguous()
        return held

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return self.codes.to(torch.float32) * self.scales.to(torch.float32).unsqueeze(1)

    def multiply(self, activation: Tensor) -> Tensor:
        """Torch's packed product for few bfloat16 rows; else codes made floating, then scaled."""
        flat = activation.reshape(-1, self.columns)
        if flat.dtype == torch.bfloat16 and flat.shape[0] <= wna16_mm.FEW_ROWS:
            product = wna16_mm.int8_matmul(flat, self.codes, self.scales)
        else:
            product = functional.linear(flat, self.codes.to(flat.dtype)) * self.scales
        return product.to(activation.dtype).view(*activation.shape[:-1], self.rows)

    @property
    def speed(self) -> str:
        """The packed product runs while decoding."""
        return "measured"


class Int4Tiles(Format):
    """Codes of 4 bits in the tiles of torch's 4-bit product."""

    key = "int4-tiles"
    codes: Tensor
    scales: Tensor

    def __init__(self, rows: int, columns: int, group_size: int) -> None:
        super().__init__(rows, columns)
        self.group_size = group_size
        self.register_buffer("codes", empty(rows, columns // 2, dtype=torch.uint8))
        groups = columns // group_size
        self.register_buffer("scales", empty(groups, rows, 2, dtype=torch.bfloat16))

    @classmethod
    def pack(cls, codes: Tensor, scales: Tensor, offsets: Tensor | None, group_size: int) -> Self:
        """Hold codes [rows, columns] in 0 .. 15 with scales and offsets [rows, groups]."""
        held = cls(*codes.shape, group_size)
        held.codes = wna16_mm.int4_pack(codes)
        held.scales = wna16_mm.int4_scales(scales, offsets)
        return held

    def dense(self) -> Tensor:
        """The matrix rounded to bfloat16, in float32, from products with unit vectors."""
        unit = torch.eye(self.columns, dtype=torch.bfloat16, device=self.codes.device)
        return self._product(unit).T.to(torch.float32)

    def multiply(self, activation: Tensor) -> Tensor:
        """Torch's packed product; exact in the weight, bfloat16 in the activation."""
        if activation.dtype != torch.bfloat16:
            return super().multiply(activation)
        flat = activation.reshape(-1, self.columns)
        return self._product(flat).view(*activation.shape[:-1], self.rows)

    def _product(self, flat: Tensor) -> Tensor:
        return wna16_mm.int4_matmul(flat.contiguous(), self.codes, self.group_size, self.scales)

    @property
    def speed(self) -> str:
        """The packed product runs while decoding."""
        return "measured"
