"""The Walsh-Hadamard transform of rows, with or without codes; see `kernels.scaled_mm`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import scaled_mm

EVEN = tl.constexpr(12582912.0)  # 1.5 * 2**23: adding it rounds a float32 to even
NUMBERS = 4096  # that a program holds


@triton.jit
def hadamard_kernel(
    activation,
    signs,
    out,
    scales,
    rows,
    scale,
    COLUMNS: tl.constexpr,
    STEPS: tl.constexpr,
    LEVELS: tl.constexpr,
    SMALLEST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK rows; after STEPS steps that each move a bit of the place to the front, it is back."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None]
    place = row[:, None] * COLUMNS + column[None, :]
    x = tl.load(activation + place, mask=inside, other=0.0).to(tl.float32)
    x = x * tl.load(signs + column).to(tl.float32)[None, :]
    for _ in tl.static_range(STEPS):
        first, second = tl.split(tl.reshape(x, (BLOCK, COLUMNS // 2, 2)))
        both = tl.join(first + second, first - second)
        x = tl.reshape(tl.permute(both, (0, 2, 1)), (BLOCK, COLUMNS))
    x = x * scale
    if LEVELS > 0:
        step = tl.maximum(tl.max(tl.abs(x), axis=1) / LEVELS, SMALLEST)
        tl.store(scales + row, step, mask=row < rows)
        x = (x / step[:, None] + EVEN) - EVEN
        x = tl.minimum(tl.maximum(x, -LEVELS), LEVELS)
    tl.store(out + place, x.to(out.dtype.element_ty), mask=inside)


def _launch(activation: Tensor, signs: Tensor, out: Tensor, scales: Tensor, levels: int) -> None:
    rows, columns = activation.shape
    scaled_mm.check_rotation(columns)
    block = max(1, NUMBERS // columns)
    hadamard_kernel[(triton.cdiv(rows, block),)](
        activation,
        signs,
        out,
        scales,
        rows,
        columns**-0.5,
        COLUMNS=columns,
        STEPS=columns.bit_length() - 1,
        LEVELS=levels,
        SMALLEST=scaled_mm.SMALLEST,
        BLOCK=block,
        num_warps=4,
    )


def rotate(activation: Tensor, signs: Tensor) -> Tensor:
    """As `kernels.scaled_mm.rotate`."""
    out = torch.empty_like(activation)
    _launch(activation, signs, out, out, 0)
    return out


def rotate_and_quantise(activation: Tensor, signs: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """As `kernels.scaled_mm.rotate_and_quantise`."""
    scaled_mm.check_levels(bits)
    out = torch.empty_like(activation, dtype=torch.int8)
    scales = torch.empty(activation.shape[0], dtype=torch.float32, device=activation.device)
    _launch(activation, signs, out, scales, (1 << (bits - 1)) - 1)
    return out, scales
