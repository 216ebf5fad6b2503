"""The product with integer groups, and with tables of values, on words of `kernels.slots`.

Few activation rows: one dot for each run of columns on raw codes, whose bits are or-ed under an
exponent so that they are numbers without a conversion (128 + code in bfloat16, 1024 + code in
float16); scale, offset and that constant follow once a tile. Many rows: weights are scaled before
the dot. Splits of the inner dimension are added up in a second pass, always in the same order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import bitpack, configs, slots
from kernels.triton.common import dot, finish, parts_for, store_part

CODES, SCALED, TABLE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def plane_of(words, RUN: tl.constexpr, COUNT: tl.constexpr):
    """The words [outputs, RUN] of one plane of a tile, repeated where it has fewer."""
    return tl.load(words + (tl.arange(0, RUN) % COUNT)[None, :])


@triton.jit
def slot_of(plane, j: tl.constexpr, RUN: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr):
    """The codes of run `j` in a plane."""
    if COUNT == RUN:
        return (plane >> (j * WIDTH)) & ((1 << WIDTH) - 1)
    shift = ((j * RUN + tl.arange(0, RUN)) // COUNT * WIDTH).to(tl.int16)
    return (plane >> shift[None, :]) & ((1 << WIDTH) - 1)


@triton.jit
def product_kernel(
    activation,
    words,
    scales,
    offsets,
    parts,
    rows,
    outputs,
    inputs,
    tiles,
    BITS: tl.constexpr,
    WIDTH_0: tl.constexpr,
    WIDTH_1: tl.constexpr,
    WIDTH_2: tl.constexpr,
    TILE: tl.constexpr,
    TILES_A_GROUP: tl.constexpr,
    SHARED: tl.constexpr,
    MODE: tl.constexpr,
    MAGIC: tl.constexpr,
    OFFSET: tl.constexpr,
    WHOLE: tl.constexpr,
    RUN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLITS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One tile [COLUMNS, ROWS] of one split.

    In mode TABLE `scales` are the tables, one if SHARED, and `offsets` scales that come after.
    """
    COUNT_0: tl.constexpr = TILE * WIDTH_0 // 16
    COUNT_1: tl.constexpr = TILE * WIDTH_1 // 16
    COUNT_2: tl.constexpr = TILE * WIDTH_2 // 16
    TILE_WORDS: tl.constexpr = TILE * BITS // 16
    split = tl.program_id(2)
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    m = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    safe_n, safe_m = tl.where(n < outputs, n, 0), tl.where(m < rows, m, 0)
    k = tl.arange(0, RUN)
    share = tl.cdiv(tiles, SPLITS)
    total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
    for tile in tl.range(
        split * share, tl.minimum(split * share + share, tiles), num_stages=STAGES
    ):
        start = words + safe_n[:, None] * (tiles * TILE_WORDS) + tile * TILE_WORDS
        plane_0 = plane_of(start, RUN, COUNT_0)
        if WIDTH_1 > 0:
            plane_1 = plane_of(start + COUNT_0, RUN, COUNT_1)
        if WIDTH_2 > 0:
            plane_2 = plane_of(start + COUNT_0 + COUNT_1, RUN, COUNT_2)
        if MODE != TABLE:
            group = tile // TILES_A_GROUP
            scale = tl.load(scales + group * outputs + safe_n).to(tl.float32)
            if OFFSET:
                offset = tl.load(offsets + group * outputs + safe_n).to(tl.float32)
        if MODE == TABLE and OFFSET:
            products = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
        if MODE == CODES:
            products = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
            sums = tl.zeros((ROWS,), dtype=tl.float32)
        for j in tl.static_range(TILE // RUN):
            column = tile * TILE + j * RUN + k
            place = activation + safe_m[None, :] * inputs + column[:, None]
            if WHOLE:
                x = tl.load(place)
            else:
                x = tl.load(place, mask=(column < inputs)[:, None], other=0.0)
            code = slot_of(plane_0, j, RUN, COUNT_0, WIDTH_0)
            if WIDTH_1 > 0:
                code = (code << WIDTH_1) | slot_of(plane_1, j, RUN, COUNT_1, WIDTH_1)
            if WIDTH_2 > 0:
                code = (code << WIDTH_2) | slot_of(plane_2, j, RUN, COUNT_2, WIDTH_2)
            if MODE == TABLE:
                if SHARED:
                    entry = scales + code.to(tl.int32)
                else:
                    entry = scales + safe_n[:, None] * (1 << BITS) + code.to(tl.int32)
                if OFFSET:
                    products = dot(tl.load(entry).to(x.dtype), x, products)
                else:
                    total = dot(tl.load(entry).to(x.dtype), x, total)
            else:
                if MAGIC == 128:
                    number = (code | 0x4300).to(tl.bfloat16, bitcast=True)
                elif MAGIC == 1024:
                    number = (code | 0x6400).to(tl.float16, bitcast=True)
                else:
                    number = code.to(tl.int32).to(tl.float32).to(x.dtype)
                if MODE == CODES:
                    products = dot(number, x, products)
                    sums += tl.sum(x.to(tl.float32), axis=0)
                else:
                    weight = number.to(tl.float32) - (MAGIC + (1 << (BITS - 1)))
                    weight = weight * scale[:, None]
                    if OFFSET:
                        weight += offset[:, None]
                    total = dot(weight.to(x.dtype), x, total)
        if MODE == TABLE and OFFSET:
            group = tile // TILES_A_GROUP
            scale = tl.load(offsets + group * outputs + safe_n).to(tl.float32)
            total += scale[:, None] * products
        if MODE == CODES:
            middle = MAGIC + (1 << (BITS - 1))
            total += scale[:, None] * (products - middle * sums[None, :])
            if OFFSET:
                total += offset[:, None] * sums[None, :]
    store_part(parts, total, split, rows, outputs, m, n)


def wna16_mm(
    activation: Tensor,
    words: Tensor,
    scales: Tensor,
    offsets: Tensor | None,
    bits: int,
    group_size: int,
    bias: Tensor | None = None,
    down: Tensor | None = None,
    up: Tensor | None = None,
    blocks: configs.Blocks | None = None,
) -> Tensor:
    """As `kernels.wna16_mm.product`, which says what the arguments are."""
    low_rank = None if down is None or up is None else (down, up)
    parts = _parts(activation, words, scales, offsets, bits, group_size, blocks)
    return finish(parts, activation, bias, low_rank)


def outlier_mm(
    activation: Tensor,
    words: Tensor,
    scales: Tensor,
    offsets: Tensor | None,
    bits: int,
    group_size: int,
    places: Tensor,
    columns: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
    blocks: configs.Blocks | None = None,
) -> Tensor:
    """As `kernels.outlier_mm.product`: the outliers are added in the second pass."""
    parts = _parts(activation, words, scales, offsets, bits, group_size, blocks)
    return finish(parts, activation, bias, outliers=(places, columns, values))


def lut_mm(
    activation: Tensor,
    words: Tensor,
    tables: Tensor,
    bits: int,
    bias: Tensor | None = None,
    scales: Tensor | None = None,
    group_size: int = 0,
    places: Tensor | None = None,
    columns: Tensor | None = None,
    values: Tensor | None = None,
    blocks: configs.Blocks | None = None,
) -> Tensor:
    """As `kernels.lut_mm.product`: tables of 2**bits values, and outliers in the second pass."""
    size = group_size or activation.shape[1]
    parts = _parts(activation, words, tables, scales, bits, size, blocks, table=True)
    whole = (
        None if places is None or columns is None or values is None else (places, columns, values)
    )
    return finish(parts, activation, bias, outliers=whole)


def _parts(
    activation: Tensor,
    words: Tensor,
    scales: Tensor,
    offsets: Tensor | None,
    bits: int,
    group_size: int,
    blocks: configs.Blocks | None,
    table: bool = False,
) -> Tensor:
    rows, inputs = activation.shape
    outputs = words.shape[0]
    tile = slots.tile_of(group_size, inputs)
    tiles = slots.padded_columns(inputs, tile) // tile
    widths = (*bitpack.plane_widths(bits), 0, 0)
    operation = "lut_mm" if table else "wna16_mm"
    blocks = blocks or configs.pick(
        operation, activation.device, rows, outputs, inputs, bits=bits, group=group_size
    )
    parts, grid = parts_for(activation, outputs, blocks)
    magic = 0 if bits == 8 else 128 if activation.dtype == torch.bfloat16 else 1024
    few = CODES.value if rows <= configs.DECODE_ROWS else SCALED.value
    product_kernel[grid](
        activation,
        words,
        scales,
        scales if offsets is None else offsets,
        parts,
        rows,
        outputs,
        inputs,
        tiles,
        BITS=bits,
        WIDTH_0=widths[0],
        WIDTH_1=widths[1],
        WIDTH_2=widths[2],
        TILE=tile,
        TILES_A_GROUP=tiles if group_size >= inputs else group_size // tile,
        SHARED=table and len(scales) == 1,
        MODE=TABLE.value if table else few,
        MAGIC=magic,
        OFFSET=offsets is not None,
        WHOLE=inputs % tile == 0,
        RUN=max(16, tile * widths[0] // 16),
        ROWS=blocks.rows,
        COLUMNS=blocks.columns,
        SPLITS=blocks.splits,
        STAGES=blocks.stages,
        num_warps=blocks.warps,
    )
    return parts
