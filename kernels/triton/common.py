"""What the products share: dots that the interpreter can run, and the second pass over splits.

The interpreter of Triton 3.6 to 3.9 computes on raw bits of bfloat16, so its dots take float32;
compiled code is the same with and without.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.configs import Blocks

INTERPRET = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def dot(left, right, total):
    """The matrix product of two tiles added to a float32 total."""
    if INTERPRET:
        return tl.dot(left.to(tl.float32), right.to(tl.float32), total)
    return tl.dot(left, right, total)


@triton.jit
def ones_in(words):
    """How many bits of each uint32 are set; compiled to one instruction on NVIDIA."""
    words = words - ((words >> 1) & 0x55555555)
    words = (words & 0x33333333) + ((words >> 2) & 0x33333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F
    return ((words * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def store_part(parts, total, split, rows, outputs, m, n):
    """Write a program's sums [outputs n, rows m] of one split into [splits, rows, outputs]."""
    place = split * rows * outputs + m[None, :] * outputs + n[:, None]
    tl.store(parts + place, total, mask=(m < rows)[None, :] & (n < outputs)[:, None])


@triton.jit
def finish_kernel(
    parts,
    out,
    bias,
    inner,
    up,
    activation,
    places,
    columns,
    values,
    rows,
    outputs,
    inputs,
    rank,
    SPLITS: tl.constexpr,
    BIAS: tl.constexpr,
    RANK: tl.constexpr,
    OUTLIERS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Add up splits [splits, rows, outputs] in order, then bias, low-rank part and outliers."""
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (m < rows)[:, None] & (n < outputs)[None, :]
    place = m[:, None] * outputs + n[None, :]
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for split in range(SPLITS):
        total += tl.load(parts + split * rows * outputs + place, mask=inside, other=0.0)
    if BIAS:
        total += tl.load(bias + n, mask=n < outputs, other=0.0).to(tl.float32)[None, :]
    if RANK > 0:
        r = tl.arange(0, RANK)
        left = tl.load(
            inner + m[:, None] * rank + r[None, :],
            mask=(m < rows)[:, None] & (r < rank)[None, :],
            other=0.0,
        )
        right = tl.load(
            up + n[None, :] * rank + r[:, None],
            mask=(n < outputs)[None, :] & (r < rank)[:, None],
            other=0.0,
        )
        total = dot(left, right, total)
    if OUTLIERS:
        first = tl.load(places + n, mask=n < outputs, other=0)
        last = tl.load(places + n + 1, mask=n < outputs, other=0)
        for step in range(tl.max(last - first, axis=0)):
            live = first + step < last
            k = tl.load(columns + first + step, mask=live, other=0).to(tl.int32)
            value = tl.load(values + first + step, mask=live, other=0.0).to(tl.float32)
            x = tl.load(
                activation + m[:, None] * inputs + k[None, :],
                mask=(m < rows)[:, None] & live[None, :],
                other=0.0,
            )
            total += x.to(tl.float32) * value[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


def finish(
    parts: Tensor,
    activation: Tensor,
    bias: Tensor | None = None,
    low_rank: tuple[Tensor, Tensor] | None = None,
    outliers: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """The sum of parts [splits, rows, outputs] and what else belongs to the product.

    Args:
        parts: float32.
        activation: [rows, inputs]; its type is the result's.
        bias: [outputs].
        low_rank: `down` [rank, inputs] and `up` [outputs, rank].
        outliers: where each row's entries begin [outputs + 1], their columns, their values.
    """
    splits, rows, outputs = parts.shape
    out = torch.empty((rows, outputs), dtype=activation.dtype, device=activation.device)
    inner, up = (activation @ low_rank[0].T, low_rank[1]) if low_rank else (out, out)
    rank = up.shape[1] if low_rank else 0
    places, columns, values = outliers or (out, out, out)
    height = min(16, triton.next_power_of_2(rows))
    height = 16 if rank else height
    grid = triton.cdiv(rows, height), triton.cdiv(outputs, 64)
    finish_kernel[grid](
        parts,
        out,
        out if bias is None else bias,
        inner,
        up,
        activation,
        places,
        columns,
        values,
        rows,
        outputs,
        activation.shape[1],
        rank,
        SPLITS=splits,
        BIAS=bias is not None,
        RANK=max(16, triton.next_power_of_2(rank)) if rank else 0,
        OUTLIERS=outliers is not None,
        ROWS=height,
        COLUMNS=64,
        num_warps=4,
    )
    return out


def parts_for(activation: Tensor, outputs: int, blocks: Blocks) -> tuple[Tensor, tuple[int, ...]]:
    """Room for the splits of a product and the grid that fills it."""
    rows = activation.shape[0]
    shape = blocks.splits, rows, outputs
    parts = torch.empty(shape, dtype=torch.float32, device=activation.device)
    return parts, (
        triton.cdiv(outputs, blocks.columns),
        triton.cdiv(rows, blocks.rows),
        blocks.splits,
    )
