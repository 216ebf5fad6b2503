"""int8 and float8 products with a scale a token and a row; see `kernels.scaled_mm`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import configs
from kernels.triton.common import finish, parts_for

DEPTH = 128  # columns of a step


@triton.jit
def scaled_kernel(
    activation,
    weight,
    token_scales,
    row_scales,
    parts,
    rows,
    outputs,
    inputs,
    WHOLE_NUMBERS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One tile [ROWS, COLUMNS] of one split, scaled."""
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    m = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(2)
    steps = tl.cdiv(inputs, DEPTH)
    share = tl.cdiv(steps, SPLITS)
    if WHOLE_NUMBERS:
        total = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
    else:
        total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for step in range(split * share, tl.minimum(split * share + share, steps)):
        k = step * DEPTH + tl.arange(0, DEPTH)
        left = (m < rows)[:, None] & (k < inputs)[None, :]
        right = (n < outputs)[None, :] & (k < inputs)[:, None]
        zero = 0 if WHOLE_NUMBERS else 0.0
        x = tl.load(activation + m[:, None] * inputs + k[None, :], mask=left, other=zero)
        w = tl.load(weight + n[None, :] * inputs + k[:, None], mask=right, other=zero)
        total = tl.dot(x, w, total, out_dtype=total.dtype)
    by_token = tl.load(token_scales + m, mask=m < rows, other=0.0).to(tl.float32)
    by_row = tl.load(row_scales + n, mask=n < outputs, other=0.0).to(tl.float32)
    out = total.to(tl.float32) * (by_token[:, None] * by_row[None, :])
    place = split * rows * outputs + m[:, None] * outputs + n[None, :]
    tl.store(parts + place, out, mask=(m < rows)[:, None] & (n < outputs)[None, :])


def product(
    activation: Tensor,
    weight: Tensor,
    token_scales: Tensor,
    row_scales: Tensor,
    bias: Tensor | None = None,
    blocks: configs.Blocks | None = None,
) -> Tensor:
    """As `kernels.scaled_mm.int8` and `float8`, by the type of both sides."""
    rows, inputs = activation.shape
    outputs = weight.shape[0]
    blocks = blocks or configs.pick(
        "scaled_mm", activation.device, rows, outputs, inputs, bits=8, group=inputs
    )
    parts, grid = parts_for(activation, outputs, blocks)
    scaled_kernel[grid](
        activation,
        weight,
        token_scales,
        row_scales,
        parts,
        rows,
        outputs,
        inputs,
        WHOLE_NUMBERS=activation.dtype == torch.int8,
        ROWS=blocks.rows,
        COLUMNS=blocks.columns,
        DEPTH=DEPTH,
        SPLITS=blocks.splits,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )
    kind = row_scales.new_empty(rows, 0)
    return finish(parts, kind, bias)
