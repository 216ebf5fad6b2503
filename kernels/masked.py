"""Matrices of parts that a mask tells apart, read by the extension where they lie.

Beside `packed`, which knows those of one part and of two kinds of rows.
"""

from __future__ import annotations

import ctypes

from torch import Tensor

from kernels.layout import Address, Matrix, Number, Packed, here, shape_of


class _GroupSparse(ctypes.Structure):
    _fields_ = (("shape", Packed), ("mask", Address), ("values", Address), ("group_size", Number))


def groups(mask: Tensor, columns: int, values: Matrix | None, group_size: int) -> Matrix | None:
    """Of a mask [rows, bytes], a bit a group, and the values [1, group_size * kept] it marks."""
    if values is None or not here(mask):
        return None
    shape = shape_of("decode_groups", mask.shape[0], columns)
    structure = _GroupSparse(shape, mask.data_ptr(), values.address, group_size)
    return Matrix(structure, (mask, values))


class _SplitColumns(ctypes.Structure):
    _fields_ = (
        ("shape", Packed),
        *((name, Address) for name in ("mask", "fine", "coarse", "scales")),
    )


def columns(
    mask: Tensor, fine: Matrix | None, coarse: Matrix | None, scales: Tensor
) -> Matrix | None:
    """Of a mask [1, bytes], a bit a column, and the columns of both kinds.

    Those not marked are `coarse` times `scales` [number of them], bfloat16.
    """
    if fine is None or coarse is None or not here(mask, scales):
        return None
    shape = shape_of("decode_columns", fine.shape[0], fine.shape[1] + coarse.shape[1])
    addresses = mask.data_ptr(), fine.address, coarse.address, scales.data_ptr()
    return Matrix(_SplitColumns(shape, *addresses), (mask, fine, coarse, scales))
