"""The product with bfloat16 weights, bit for bit, whose exponents are codes of four bits.

For GPUs, where a table would cost a load a weight: fifteen exponents follow each other, code 0
stands for zero, and numbers with other exponents lie apart. Codes lie in tiles of 128 columns,
the first 64 in the low halves of 64 bytes, so that neighbours in memory are neighbours in the row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kernels import bfloat16, registry, wna16_mm

TILE = 128
CODES = 15


class Parts(NamedTuple):
    """A matrix in parts.

    Attributes:
        rest: signs and mantissas [rows, padded columns], uint8; zeros for what lies apart.
        codes: of exponents, two a byte [rows, padded columns / 2].
        base: the exponent of code 1, less one.
        places: where the numbers apart of each row begin [rows + 1], int32.
        columns: of the numbers apart, int32.
        values: the same, bfloat16.
    """

    rest: Tensor
    codes: Tensor
    base: int
    places: Tensor
    columns: Tensor
    values: Tensor


def pack(weight: Tensor) -> Parts:
    """Parts of a weight [rows, columns], bfloat16, of any bits."""
    exponents, rest = bfloat16.taken_apart(weight)
    exponents = exponents.to(torch.int64)
    counts = torch.bincount(exponents.flatten(), minlength=256)
    counts[[0, 255]] = 0  # zeros have a code of their own; what is not finite lies apart
    base = int(counts.unfold(0, CODES, 1).sum(1).argmax()) - 1
    zero = (exponents == 0) & (rest & 0x7F == 0)
    codes = exponents - base
    beyond = (exponents == 0) | (exponents == 255)  # a code's number has a leading one, and ends
    apart = ~zero & ((codes < 1) | (codes > CODES) | beyond)
    codes[zero | apart] = 0
    rest[apart] = 0
    places = functional.pad(apart.sum(1).cumsum(0), (1, 0)).to(torch.int32)
    columns = apart.nonzero()[:, 1].to(torch.int32)
    short = -weight.shape[1] % TILE
    halves = functional.pad(codes.to(torch.uint8), (0, short)).view(len(weight), -1, 2, TILE // 2)
    joined = (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(1)
    values = weight.detach()[apart]
    return Parts(functional.pad(rest, (0, short)), joined, base, places, columns, values)


def unpack(parts: Parts, columns: int) -> Tensor:
    """Undo `pack`: the weight [rows, columns], bfloat16."""
    found = decoded(parts.rest, parts.codes, parts.base)[:, :columns].contiguous()
    counts = parts.places.diff().to(torch.int64)
    rows = torch.arange(len(found), device=found.device).repeat_interleave(counts)
    found[rows, parts.columns.to(torch.int64)] = parts.values
    return found


def decoded(rest: Tensor, codes: Tensor, base: int) -> Tensor:
    """Some rows with padded columns, bfloat16; zeros for what lies apart."""
    halves = codes.view(len(codes), -1, 1, TILE // 2)
    found = torch.cat([halves & 15, halves >> 4], dim=2).flatten(1).to(torch.int32)
    return bfloat16.joined(torch.where(found == 0, 0, found + base), rest)


def _reference(
    activation: Tensor,
    rest: Tensor,
    codes: Tensor,
    base: int,
    places: Tensor,
    columns: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    wide = activation.to(torch.float32)
    weight = decoded(rest, codes, base)[:, : activation.shape[1]]
    out = wide @ weight.to(torch.float32).T
    if bias is not None:
        out += bias.to(torch.float32)
    return wna16_mm.add_apart(out, wide, places, columns, values).to(activation.dtype)


product = registry.operation(
    "lossless_mm(Tensor x, Tensor rest, Tensor codes, int base, Tensor places, Tensor columns, "
    "Tensor values, Tensor? bias=None) -> Tensor",
    shape=lambda x, rest, *_: x.new_empty(x.shape[0], rest.shape[0]),
    reference=_reference,
    kernel="lossless_mm.product",
)
"""Activation [tokens, columns] times what `pack` made: [tokens, rows]."""
