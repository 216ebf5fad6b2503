"""bfloat16 matrices whose exponents are codes, read by the extension where they lie."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels import extension
from kernels.layout import Address, Matrix, Number, Packed, here, shape_of


class _EntropyCoded(ctypes.Structure):
    _fields_ = (
        ("shape", Packed),
        *((name, Address) for name in ("rest", "stream", "bases", "starts", "table")),
        ("bytes", Number),
    )


class _WindowCoded(ctypes.Structure):
    _fields_ = (
        ("shape", Packed),
        *((name, Address) for name in ("rest", "codes", "table", "rows", "columns", "values")),
        ("apart", Number),
    )


def entropy(
    rest: Tensor, stream: Tensor, lengths: Tensor, bases: Tensor, starts: Tensor, first: int
) -> Matrix | None:
    """Of bytes [rows, columns] whose exponents lie in a stream of lanes; symbols count from first.

    A table of 17 kB, made of the lengths of codes, is held beside them.
    """
    if not here(rest, stream, lengths, bases, starts):
        return None
    make = extension.library().code_table
    about = Address(lengths.data_ptr()), Number(lengths.numel()), Number(first)
    table = torch.empty(-(-make(*about, None) // 8), dtype=torch.int64)
    make(*about, Address(table.data_ptr()))
    parts = (rest, stream, bases, starts, table)
    shape = shape_of("decode_entropy", *rest.shape)
    addresses = (part.data_ptr() for part in parts)
    return Matrix(_EntropyCoded(shape, *addresses, stream.numel()), parts)


def window(rest: Tensor, *parts: Tensor) -> Matrix | None:
    """Of bytes [rows, columns], then codes of their exponents, a table, and what lies apart."""
    if not here(rest, *parts):
        return None
    shape = shape_of("decode_window", *rest.shape)
    addresses = (part.data_ptr() for part in (rest, *parts))
    return Matrix(_WindowCoded(shape, *addresses, parts[-1].numel()), (rest, parts))
