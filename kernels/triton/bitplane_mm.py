"""Products with signs of one bit an entry, on words of `kernels.slots`; see `kernels.bitplane_mm`.

Planes are added up to weights before the dot, and sizes of two factors are made by a dot of their
own; both are then rounded as the activation is.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels import configs, slots
from kernels.triton.common import dot, finish, parts_for, store_part

STAGES = 1  # three of all planes' words would take more shared memory than small GPUs have


@triton.jit
def signs_of(start, j: tl.constexpr, RUN: tl.constexpr, COUNT: tl.constexpr):
    """+1 and -1 [outputs, RUN] of run `j` of a tile whose words begin at `start` [outputs, 1]."""
    column = j * RUN + tl.arange(0, RUN)
    word = tl.load(start + (column % COUNT)[None, :]).to(tl.int32)
    bit = (word >> (column // COUNT)[None, :]) & 1
    return (2 * bit - 1).to(tl.float32)


@triton.jit
def run_of(activation, safe_m, column, inputs, WHOLE: tl.constexpr):
    """Activations [RUN, rows] of some columns."""
    place = activation + safe_m[None, :] * inputs + column[:, None]
    if WHOLE:
        return tl.load(place)
    return tl.load(place, mask=(column < inputs)[:, None], other=0.0)


@triton.jit
def planes_kernel(
    activation,
    words,
    worth,
    parts,
    rows,
    outputs,
    inputs,
    tiles,
    groups,
    PLANES: tl.constexpr,
    TILE: tl.constexpr,
    TILES_A_GROUP: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One tile [COLUMNS, ROWS] of one split."""
    COUNT: tl.constexpr = TILE // 16
    RUN: tl.constexpr = 32 if TILE >= 32 else 16
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    m = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(2)
    safe_n, safe_m = tl.where(n < outputs, n, 0), tl.where(m < rows, m, 0)
    share = tl.cdiv(tiles, SPLITS)
    total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
    for tile in range(split * share, tl.minimum(split * share + share, tiles)):
        group = tile // TILES_A_GROUP
        offset = tl.load(worth + (PLANES * groups + group) * outputs + safe_n).to(tl.float32)
        for j in tl.static_range(TILE // RUN):
            column = tile * TILE + j * RUN + tl.arange(0, RUN)
            x = run_of(activation, safe_m, column, inputs, WHOLE)
            weight = tl.zeros((COLUMNS, RUN), dtype=tl.float32) + offset[:, None]
            for plane in tl.static_range(PLANES):
                start = words + ((plane * outputs + safe_n[:, None]) * tiles + tile) * COUNT
                scale = tl.load(worth + (plane * groups + group) * outputs + safe_n)
                weight += scale.to(tl.float32)[:, None] * signs_of(start, j, RUN, COUNT)
            total = dot(weight.to(x.dtype), x, total)
    store_part(parts, total, split, rows, outputs, m, n)


@triton.jit
def sized_kernel(
    activation,
    words,
    left,
    right,
    parts,
    rows,
    outputs,
    inputs,
    tiles,
    rank,
    RANK: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One tile [COLUMNS, ROWS] of one split."""
    TILE: tl.constexpr = 128
    RUN: tl.constexpr = 32
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    m = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(2)
    safe_n, safe_m = tl.where(n < outputs, n, 0), tl.where(m < rows, m, 0)
    r = tl.arange(0, RANK)
    factor = tl.load(
        left + safe_n[:, None] * rank + r[None, :], mask=(r < rank)[None, :], other=0.0
    )
    share = tl.cdiv(tiles, SPLITS)
    total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
    for tile in range(split * share, tl.minimum(split * share + share, tiles)):
        start = words + (safe_n[:, None] * tiles + tile) * (TILE // 16)
        for j in tl.static_range(TILE // RUN):
            column = tile * TILE + j * RUN + tl.arange(0, RUN)
            x = run_of(activation, safe_m, column, inputs, WHOLE)
            other = tl.load(
                right + r[:, None] * inputs + column[None, :],
                mask=(r < rank)[:, None] & (column < inputs)[None, :],
                other=0.0,
            )
            sizes = dot(factor, other, tl.zeros((COLUMNS, RUN), dtype=tl.float32))
            weight = sizes * signs_of(start, j, RUN, TILE // 16)
            total = dot(weight.to(x.dtype), x, total)
    store_part(parts, total, split, rows, outputs, m, n)


def planes(
    activation: Tensor,
    words: Tensor,
    worth: Tensor,
    group_size: int,
    bias: Tensor | None = None,
    blocks: configs.Blocks | None = None,
) -> Tensor:
    """As `kernels.bitplane_mm.planes`."""
    rows, inputs = activation.shape
    count, outputs = words.shape[:2]
    tile = slots.tile_of(group_size, inputs)
    tiles = slots.padded_columns(inputs, tile) // tile
    blocks = blocks or configs.pick(
        "bitplane_mm", activation.device, rows, outputs, inputs, bits=count, group=group_size
    )
    parts, grid = parts_for(activation, outputs, blocks)
    planes_kernel[grid](
        activation,
        words,
        worth,
        parts,
        rows,
        outputs,
        inputs,
        tiles,
        worth.shape[1],
        PLANES=count,
        TILE=tile,
        TILES_A_GROUP=tiles if group_size >= inputs else group_size // tile,
        WHOLE=inputs % tile == 0,
        ROWS=blocks.rows,
        COLUMNS=blocks.columns,
        SPLITS=blocks.splits,
        num_warps=blocks.warps,
        num_stages=STAGES,
    )
    return finish(parts, activation, bias)


def sized(
    activation: Tensor,
    words: Tensor,
    left: Tensor,
    right: Tensor,
    bias: Tensor | None = None,
    blocks: configs.Blocks | None = None,
) -> Tensor:
    """As `kernels.bitplane_mm.sized`; the factors are taken in the activation's type."""
    rows, inputs = activation.shape
    outputs, rank = left.shape
    blocks = blocks or configs.pick("signs_mm", activation.device, rows, outputs, inputs, bits=1)
    parts, grid = parts_for(activation, outputs, blocks)
    sized_kernel[grid](
        activation,
        words,
        left.to(activation.dtype),
        right.to(activation.dtype),
        parts,
        rows,
        outputs,
        inputs,
        triton.cdiv(inputs, slots.WIDEST_TILE),
        rank,
        RANK=max(16, triton.next_power_of_2(rank)),
        WHOLE=inputs % slots.WIDEST_TILE == 0,
        ROWS=blocks.rows,
        COLUMNS=blocks.columns,
        SPLITS=blocks.splits,
        num_warps=blocks.warps,
        num_stages=STAGES,
    )
    return finish(parts, activation, bias)
