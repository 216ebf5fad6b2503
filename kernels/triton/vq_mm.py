"""The product with indices into a codebook of short vectors; see `kernels.vq_mm`.

Bytes of indices are read where they lie, and entries gathered from the codebook, which a core's
own memory holds; weights of a run of inputs are made before the dot.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels import configs
from kernels.triton.common import dot, finish, parts_for, store_part

RUN = 32  # inputs of one dot


@triton.jit
def product_kernel(
    activation,
    indices,
    codebook,
    parts,
    rows,
    outputs,
    inputs,
    width,
    BITS: tl.constexpr,
    DIMENSION: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    RUN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One tile [COLUMNS, ROWS] of one split of the inputs."""
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    m = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(2)
    safe_n, safe_m = tl.where(n < outputs, n, 0), tl.where(m < rows, m, 0)
    runs = tl.cdiv(inputs, RUN)
    share = tl.cdiv(runs, SPLITS)
    total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
    for run in range(split * share, tl.minimum(split * share + share, runs)):
        k = run * RUN + tl.arange(0, RUN)
        inside = k < inputs
        safe_k = tl.where(inside, k, 0)
        if TRANSPOSED:
            line, along = safe_k[None, :], safe_n[:, None]
        else:
            line, along = safe_n[:, None], safe_k[None, :]
        vector = along // DIMENSION
        byte = tl.load(indices + line * width + vector * BITS // 8).to(tl.int32)
        code = (byte >> (vector * BITS % 8)) & ((1 << BITS) - 1)
        weight = tl.load(codebook + code * DIMENSION + along % DIMENSION)
        x = tl.load(
            activation + safe_m[None, :] * inputs + k[:, None], mask=inside[:, None], other=0.0
        )
        total = dot(weight.to(x.dtype), x, total)
    store_part(parts, total, split, rows, outputs, m, n)


def product(
    activation: Tensor,
    indices: Tensor,
    codebook: Tensor,
    outputs: int,
    transposed: bool,
    bias: Tensor | None = None,
    blocks: configs.Blocks | None = None,
) -> Tensor:
    """As `kernels.vq_mm.product`."""
    rows, inputs = activation.shape
    entries, dimension = codebook.shape
    bits = entries.bit_length() - 1
    about = {"bits": bits, "group": dimension}
    blocks = blocks or configs.pick("vq_mm", activation.device, rows, outputs, inputs, **about)
    parts, grid = parts_for(activation, outputs, blocks)
    product_kernel[grid](
        activation,
        indices,
        codebook,
        parts,
        rows,
        outputs,
        inputs,
        indices.shape[1],
        BITS=bits,
        DIMENSION=dimension,
        TRANSPOSED=transposed,
        RUN=RUN,
        ROWS=blocks.rows,
        COLUMNS=blocks.columns,
        SPLITS=blocks.splits,
        num_warps=blocks.warps,
    )
    return finish(parts, activation, bias)
