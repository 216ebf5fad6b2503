"""Products with sparse weights that are laid out tile by tile in registers; `kernels.sparse_mm`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels import configs, sparse_mm
from kernels.triton.common import dot, finish, ones_in, parts_for, store_part


@triton.jit
def bitmask_kernel(
    activation,
    words,
    starts,
    values,
    parts,
    rows,
    outputs,
    inputs,
    tiles,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One tile [COLUMNS, ROWS] of one split; two slots of 8 words make a dot of 16 columns."""
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    m = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(2)
    safe_n, safe_m = tl.where(n < outputs, n, 0), tl.where(m < rows, m, 0)
    k = tl.arange(0, 16)
    share = tl.cdiv(tiles, SPLITS)
    total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
    for tile in range(split * share, tl.minimum(split * share + share, tiles)):
        place = (safe_n[:, None] * tiles + tile) * 8
        bits = tl.load(words + place + (k % 8)[None, :]).to(tl.uint16, bitcast=True).to(tl.uint32)
        counts = ones_in(bits)
        whole = tl.sum(tl.where((k < 8)[None, :], counts, 0), axis=1)
        # the upper half repeats the words of the lower one, and so the counts before them
        each = tl.cumsum(counts, axis=1) - counts - tl.where((k < 8)[None, :], 0, whole[:, None])
        first = tl.load(starts + safe_n * tiles + tile)[:, None] + each
        for j in tl.static_range(8):
            slot = (2 * j + k // 8).to(tl.uint32)[None, :]
            on = ((bits >> slot) & 1) != 0
            below = bits & ((tl.full((COLUMNS, 16), 1, tl.uint32) << slot) - 1)
            value = tl.load(values + first + ones_in(below), mask=on, other=0.0)
            column = tile * 128 + j * 16 + k
            x = tl.load(
                activation + safe_m[None, :] * inputs + column[:, None],
                mask=(column < inputs)[:, None],
                other=0.0,
            )
            total = dot(value.to(x.dtype), x, total)
    store_part(parts, total, split, rows, outputs, m, n)


@triton.jit
def fours_kernel(
    activation,
    values,
    words,
    parts,
    rows,
    outputs,
    inputs,
    fours,
    tiles,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One tile [COLUMNS, ROWS] of one split; a dot for each place in 32 neighbouring fours."""
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    m = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(2)
    safe_n, safe_m = tl.where(n < outputs, n, 0), tl.where(m < rows, m, 0)
    k = tl.arange(0, 32)
    share = tl.cdiv(tiles, SPLITS)
    total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
    for tile in range(split * share, tl.minimum(split * share + share, tiles)):
        held = tl.load(words + (safe_n[:, None] * tiles + tile) * 32 + k[None, :]).to(tl.int32)
        for j in tl.static_range(4):
            code = (held >> (4 * j)) & 15
            four = tile * 128 + j * 32 + k
            inside = (four < fours)[None, :]
            place = safe_n[:, None] * fours + four[None, :]
            first = tl.load(values + place, mask=inside, other=0.0).to(tl.float32)
            second = tl.load(values + outputs * fours + place, mask=inside, other=0.0)
            second = second.to(tl.float32)
            for spot in tl.static_range(4):
                weight = tl.where((code >> 2) == spot, second, 0.0)
                weight = tl.where((code & 3) == spot, first, weight)
                x = tl.load(
                    activation + safe_m[None, :] * inputs + (4 * four + spot)[:, None],
                    mask=(four < fours)[:, None],
                    other=0.0,
                )
                total = dot(weight.to(x.dtype), x, total)
    store_part(parts, total, split, rows, outputs, m, n)


def bitmask(
    activation: Tensor,
    words: Tensor,
    starts: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
    blocks: configs.Blocks | None = None,
) -> Tensor:
    """As `kernels.sparse_mm.bitmask`."""
    rows, inputs = activation.shape
    outputs, tiles = starts.shape
    blocks = blocks or configs.pick("bitmask_mm", activation.device, rows, outputs, inputs)
    parts, grid = parts_for(activation, outputs, blocks)
    bitmask_kernel[grid](
        activation,
        words,
        starts,
        values,
        parts,
        rows,
        outputs,
        inputs,
        tiles,
        ROWS=blocks.rows,
        COLUMNS=blocks.columns,
        SPLITS=blocks.splits,
        num_warps=blocks.warps,
    )
    return finish(parts, activation, bias)


def fours(
    activation: Tensor,
    values: Tensor,
    words: Tensor,
    bias: Tensor | None = None,
    blocks: configs.Blocks | None = None,
) -> Tensor:
    """As `kernels.sparse_mm.fours`."""
    rows, inputs = activation.shape
    _, outputs, count = values.shape
    blocks = blocks or configs.pick("sp24_mm", activation.device, rows, outputs, inputs)
    parts, grid = parts_for(activation, outputs, blocks)
    fours_kernel[grid](
        activation,
        values,
        words,
        parts,
        rows,
        outputs,
        inputs,
        count,
        triton.cdiv(count, sparse_mm.TILE),
        ROWS=blocks.rows,
        COLUMNS=blocks.columns,
        SPLITS=blocks.splits,
        num_warps=blocks.warps,
    )
    return finish(parts, activation, bias)
