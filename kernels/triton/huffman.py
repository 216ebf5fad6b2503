"""Lanes of `kernels.huffman` decoded side by side, one lane a thread; see `kernels.lossless`.

A lane's 64 numbers lie next to each other, so a warp's stores are 128 bytes apart.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import huffman

LANES = 128  # a program's


@triton.jit
def decode_kernel(
    stream,
    bases,
    starts,
    lookup,
    rest,
    out,
    lanes,
    count,
    first,
    LANE: tl.constexpr,
    GROUP: tl.constexpr,
    LIMIT: tl.constexpr,
    LANES: tl.constexpr,
):
    """LANES lanes; a code lies in three bytes, wherever in the first of them it starts."""
    lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    mine = lane < lanes
    within = tl.load(starts + lane, mask=mine, other=0).to(tl.int32) & 0xFFFF
    place = tl.load(bases + lane // GROUP, mask=mine, other=0) + within
    for step in range(LANE):
        at = stream + (place >> 3)
        window = tl.load(at, mask=mine, other=0).to(tl.int32) << 16
        window |= tl.load(at + 1, mask=mine, other=0).to(tl.int32) << 8
        window |= tl.load(at + 2, mask=mine, other=0).to(tl.int32)
        ahead = (window >> (24 - LIMIT - (place & 7)).to(tl.int32)) & ((1 << LIMIT) - 1)
        entry = tl.load(lookup + ahead)
        place += entry >> 8
        target = lane * LANE + step
        inside = mine & (target < count)
        other = tl.load(rest + target, mask=inside, other=0).to(tl.int32)
        bits = ((other & 0x80) << 8) | (((entry & 0xFF) + first) << 7) | (other & 0x7F)
        tl.store(out + target, bits.to(tl.int16), mask=inside)


def decode(
    stream: Tensor, bases: Tensor, starts: Tensor, lengths: Tensor, rest: Tensor, first: int
) -> Tensor:
    """As `kernels.lossless.decode`."""
    out = torch.empty(rest.shape, dtype=torch.int16, device=rest.device)
    lookup = huffman.table(lengths).to(torch.int32)
    lanes = starts.numel()
    decode_kernel[(triton.cdiv(lanes, LANES),)](
        stream,
        bases,
        starts,
        lookup,
        rest,
        out,
        lanes,
        rest.numel(),
        first,
        LANE=huffman.LANE,
        GROUP=huffman.GROUP,
        LIMIT=huffman.LIMIT,
        LANES=LANES,
        num_warps=4,
    )
    return out.view(torch.bfloat16)
