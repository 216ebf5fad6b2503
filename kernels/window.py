"""bfloat16 numbers, bit for bit, their exponents in codes of four bits; knows nothing of formats.

Larger than Huffman codes and read far quicker: all codes are as long, so that a processor looks
sixty-four of them up at once and a product waits for memory alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels import bfloat16, bitpack, coded
from kernels.layout import Matrix

APART = 15
"""The code of what the table of fifteen exponents lacks."""


class Parts(NamedTuple):
    """A matrix in parts.

    Attributes:
        rest: signs and mantissas [rows, columns]; zeros for what lies apart.
        codes: of exponents, two a byte [rows, ceil(columns / 2)].
        table: exponents by their codes [16]; the last is zero.
        rows: of the numbers apart [number], in order.
        columns: of the same.
        values: the same, bfloat16.
    """

    rest: Tensor
    codes: Tensor
    table: Tensor
    rows: Tensor
    columns: Tensor
    values: Tensor

    def matrix(self) -> Matrix | None:
        """The parts where they lie, as the extension reads them."""
        return coded.window(*self)


def encode(values: Tensor) -> Parts:
    """Parts of a matrix [rows, columns], bfloat16, of any bits.

    What is not finite lies apart, so that no table holds its exponent.
    """
    exponents, rest = bfloat16.taken_apart(values)
    counts = torch.bincount(exponents.flatten().to(torch.int64), minlength=256)
    counts[255] = -1
    common = counts.argsort(descending=True, stable=True)[:APART]
    code_of = torch.full((256,), APART, dtype=torch.uint8, device=values.device)
    code_of[common] = torch.arange(APART, dtype=torch.uint8, device=values.device)
    codes = code_of[exponents.to(torch.int64)]
    rows, columns = (codes == APART).nonzero(as_tuple=True)
    rest[rows, columns] = 0
    table = torch.cat([common, common.new_zeros(1)]).to(torch.uint8)
    places = rows.to(torch.int32), columns.to(torch.int32)
    return Parts(rest, bitpack.pack_plane(codes, 4), table, *places, values.detach()[rows, columns])


def decode(parts: Parts) -> Tensor:
    """Undo `encode`."""
    codes = bitpack.unpack_plane(parts.codes, 4, parts.rest.shape[1])
    found = bfloat16.joined(parts.table[codes.to(torch.int64)], parts.rest)
    found[parts.rows.to(torch.int64), parts.columns.to(torch.int64)] = parts.values
    return found
