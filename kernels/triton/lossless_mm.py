"""The product with exponents in codes of four bits; `kernels.lossless_mm`.

A code is used as an exponent as it is, and zero's is zero's, so that no weight is looked up nor
compared. Weights are so many powers of two too small by that; activations are made as many too
large but for what the sum is brought back by, and powers of two round nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels import configs
from kernels.lossless_mm import TILE
from kernels.triton.common import dot, finish, parts_for, store_part

LARGER = tl.constexpr(2.0**100)


@triton.jit
def lossless_kernel(
    activation,
    rest,
    codes,
    parts,
    factor,
    rows,
    outputs,
    inputs,
    tiles,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLITS: tl.constexpr,
    HALF: tl.constexpr,
):
    """One tile [COLUMNS, ROWS] of one split; each half of a byte makes a dot of HALF columns."""
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    m = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(2)
    safe_n, safe_m = tl.where(n < outputs, n, 0), tl.where(m < rows, m, 0)
    k = tl.arange(0, HALF)
    share = tl.cdiv(tiles, SPLITS)
    total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
    for tile in range(split * share, tl.minimum(split * share + share, tiles)):
        place = (safe_n[:, None] * tiles + tile) * HALF + k[None, :]
        pair = tl.load(codes + place).to(tl.int16)
        for half in tl.static_range(2):
            column = tile * 2 * HALF + half * HALF + k
            other = tl.load(rest + safe_n[:, None] * tiles * 2 * HALF + column[None, :])
            other = other.to(tl.int16)
            code = ((pair << 7) if half == 0 else (pair << 3)) & 0x780
            bits = ((other | (other << 8)) & -0x7F81) | code  # the sign is the highest bit
            x = tl.load(
                activation + safe_m[None, :] * inputs + column[:, None],
                mask=(column < inputs)[:, None],
                other=0.0,
            )
            wide = x.to(tl.float32) * LARGER
            weight = bits.to(tl.bfloat16, bitcast=True)
            if x.dtype == tl.bfloat16:
                total = dot(weight, wide.to(tl.bfloat16), total)
            else:  # TF32 holds the bits of both
                total = dot(weight.to(tl.float32), wide, total)
    total *= factor
    store_part(parts, total, split, rows, outputs, m, n)


def product(
    activation: Tensor,
    rest: Tensor,
    codes: Tensor,
    base: int,
    places: Tensor,
    columns: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
    blocks: configs.Blocks | None = None,
) -> Tensor:
    """As `kernels.lossless_mm.product`; what lies apart is added in the second pass."""
    rows, inputs = activation.shape
    outputs, padded = rest.shape
    blocks = blocks or configs.pick("lossless_mm", activation.device, rows, outputs, inputs)
    parts, grid = parts_for(activation, outputs, blocks)
    lossless_kernel[grid](
        activation,
        rest,
        codes,
        parts,
        2.0 ** (base - 100),
        rows,
        outputs,
        inputs,
        padded // TILE,
        ROWS=blocks.rows,
        COLUMNS=blocks.columns,
        SPLITS=blocks.splits,
        HALF=TILE // 2,
        num_warps=blocks.warps,
    )
    return finish(parts, activation, bias, outliers=(places, columns, values))
