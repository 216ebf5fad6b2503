"""Matrices as formats hold them, read by the extension where they lie; nothing is laid out anew.

The extension decodes a few rows at a time into a core's cache and multiplies them by every
activation, in float32. `Matrix` says where the parts lie; it holds no bytes of its own.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels import bitpack, extension, products
from kernels.layout import Address, Matrix, Number, Packed, here, shape_of
from kernels.products import Product


class Codes(ctypes.Structure):
    """`Codes` of kernels/cpu/packed.h."""

    _fields_ = (("planes", Address * 4),)


class _Dense(ctypes.Structure):
    _fields_ = (("shape", Packed), ("numbers", Address))


class _IntegerGroups(ctypes.Structure):
    _fields_ = (
        ("shape", Packed),
        ("codes", Codes),
        ("zero_points", Codes),
        ("group_size", Number),
        ("middle", ctypes.c_float),
        ("unit", ctypes.c_float),
        ("scales", Address),
        ("offsets", Address),
    )


class _Codebook(ctypes.Structure):
    _fields_ = (
        ("shape", Packed),
        ("codes", Codes),
        ("rows", Address),
        ("table", Address),
        ("size", Number),
        ("dimension", Number),
        ("scales", Address),
        ("group_size", Number),
    )


class _BinaryCodes(ctypes.Structure):
    _fields_ = (
        ("shape", Packed),
        ("signs", Address),
        ("worth", Address),
        ("planes", Number),
        ("group_size", Number),
    )


class _Bitmask(ctypes.Structure):
    _fields_ = (("shape", Packed), ("mask", Address), ("values", Address))


class _SignBlock(ctypes.Structure):
    _fields_ = (("shape", Packed), ("signs", Address), ("left", Address), ("right", Address))


class _Blocks(ctypes.Structure):
    _fields_ = (("held", Address), ("blocks", Number), ("chunk", Number))


class _Transposed(ctypes.Structure):
    _fields_ = (("shape", Packed), ("held", Address))


class _SumOfTwo(ctypes.Structure):
    _fields_ = (("shape", Packed), ("first", Address), ("second", Address))


class _Outliers(ctypes.Structure):
    _fields_ = (
        ("shape", Packed),
        *((name, Address) for name in ("values", "positions", "ends")),
    )


def dense(numbers: Tensor) -> Matrix | None:
    """Of numbers [rows, columns] in float32 or bfloat16."""
    name = {torch.float32: "decode_float32", torch.bfloat16: "decode_bfloat16"}
    if numbers.dtype not in name or not here(numbers):
        return None
    shape = shape_of(name[numbers.dtype], *numbers.shape)
    return Matrix(_Dense(shape, numbers.data_ptr()), (numbers,))


def integers(
    codes: dict[int, Tensor],
    columns: int,
    scales: Matrix | None,
    *,
    middle: float,
    group_size: int,
    unit: float = 1,
    offsets: Matrix | None = None,
    zero_points: dict[int, Tensor] | None = None,
) -> Matrix | None:
    """Of codes in groups: planes by width, and a scale and perhaps an offset a group.

    A code is worth (code - middle) * unit * scale. Activations are rounded to 16 bits with a scale
    every 32 columns, a fiftieth of what bfloat16 leaves; to fewer by `kernels.rounding`.
    """
    if scales is None or not here(*codes.values()):
        return None
    rows = next(iter(codes.values())).shape[0]
    structure = _IntegerGroups(
        shape_of("decode_integers", rows, columns),
        planes_of(codes),
        planes_of(zero_points or {}),
        group_size,
        middle,
        unit,
        scales.address,
        offsets.address if offsets else None,
    )
    return Matrix(structure, (codes, scales, offsets, zero_points))


def codebook(
    codes: dict[int, Tensor],
    columns: int,
    table: Tensor,
    *,
    dimension: int = 1,
    scales: Matrix | None = None,
    group_size: int = 1,
) -> Matrix | None:
    """Of codes into a table.

    Args:
        codes: planes by width, [rows, bytes].
        columns: of the matrix.
        table: [rows, size] in bfloat16, one a row; or [size, dimension] in float32 for all.
        dimension: neighbours that a code stands for.
        scales: [rows, groups], multiplied after; None for none.
        group_size: columns that share a scale.
    """
    if not here(table, *codes.values()):
        return None
    own = table.dtype == torch.bfloat16
    size = table.shape[1] if own else table.shape[0]
    structure = _Codebook(
        shape_of("decode_codebook", next(iter(codes.values())).shape[0], columns),
        planes_of(codes),
        table.data_ptr() if own else None,
        None if own else table.data_ptr(),
        size,
        dimension,
        scales.address if scales else None,
        group_size,
    )
    return Matrix(structure, (codes, table, scales))


def numbers(planes: dict[int, Tensor], columns: int) -> Tensor:
    """Codes [rows, columns] in float32, of planes by width."""
    if not here(*planes.values()):
        return bitpack.unpack(planes, columns).to(torch.float32)
    found = torch.empty(len(next(iter(planes.values()))), columns)
    extension.library().unpack_codes(
        ctypes.byref(planes_of(planes)), Number(len(found)), Number(columns),
        Address(found.data_ptr()),
    )  # fmt: skip
    return found


def binary(signs: Tensor, columns: int, worth: Matrix | None, group_size: int) -> Matrix | None:
    """Of signs [planes, rows, bytes], and scales of each plane, then offsets.

    Those lie as [(planes + 1) * rows, groups].
    """
    if worth is None or not here(signs):
        return None
    planes, rows = signs.shape[:2]
    structure = _BinaryCodes(
        shape_of("decode_binary", rows, columns),
        signs.data_ptr(),
        worth.address,
        planes,
        group_size,
    )
    return Matrix(structure, (signs, worth))


def bitmask(mask: Tensor, columns: int, values: Matrix | None) -> Matrix | None:
    """Of a mask [rows, bytes] and the values [1, kept] that it marks."""
    if values is None or not here(mask):
        return None
    shape = shape_of("decode_bitmask", mask.shape[0], columns)
    return Matrix(_Bitmask(shape, mask.data_ptr(), values.address), (mask, values))


def two_of_four(positions: Tensor, values: Matrix | None) -> Matrix | None:
    """Of positions [rows, bytes] of two bits and values [rows, columns / 2]."""
    if values is None or not here(positions):
        return None
    rows, half = values.shape
    shape = shape_of("decode_two_of_four", rows, 2 * half)
    return Matrix(_Bitmask(shape, positions.data_ptr(), values.address), (positions, values))


def signs(positive: Tensor, left: Matrix | None, right: Matrix | None) -> Matrix | None:
    """Of signs [rows, bytes] and the factors of the sizes."""
    if left is None or right is None or not here(positive):
        return None
    shape = shape_of("decode_signs", left.shape[0], right.shape[1])
    structure = _SignBlock(shape, positive.data_ptr(), left.address, right.address)
    return Matrix(structure, (positive, left, right), "multiply_signs")


def outliers(values: Tensor, positions: Tensor, ends: Tensor, columns: int) -> Product | None:
    """A product with sparse entries, row after row; `ends` [rows] counts them."""
    if not here(values, positions, ends):
        return None
    shape = Packed(None, ends.numel(), columns)
    structure = _Outliers(shape, values.data_ptr(), positions.data_ptr(), ends.data_ptr())
    kept = values, positions, ends
    return products.made("multiply_outliers", structure, ends.numel(), columns, *kept)


def blocks(held: Matrix | None, count: int, chunk: int) -> Product | None:
    """A product by `count` blocks along a diagonal, held below each other.

    Outputs are dealt: `chunk` of each block in turn, then the next of each.
    """
    if held is None:
        return None
    rows, columns = held.shape
    if rows % (count * chunk):
        raise ValueError(f"{rows} rows are not dealt by {chunk} among {count} blocks.")
    structure = _Blocks(held.address, count, chunk)
    return products.made("multiply_blocks", structure, rows, count * columns, held)


def transposed(held: Matrix | None) -> Matrix | None:
    """The transpose of a matrix."""
    if held is None:
        return None
    rows, columns = held.shape
    structure = _Transposed(shape_of("decode_transposed", columns, rows), held.address)
    return Matrix(structure, (held,))


def total(first: Matrix | None, second: Matrix | None) -> Matrix | None:
    """The sum of two matrices of one shape."""
    if first is None or second is None:
        return None
    structure = _SumOfTwo(shape_of("decode_sum", *first.shape), first.address, second.address)
    return Matrix(structure, (first, second))


def mixed(mask: Tensor, rows: int, fine: Matrix | None, coarse: Matrix | None) -> Matrix | None:
    """Rows of two matrices, told apart by a bit a row."""
    if fine is None or coarse is None or not here(mask):
        return None
    shape = shape_of("decode_mixed", rows, fine.shape[1])
    structure = _SignBlock(shape, mask.data_ptr(), fine.address, coarse.address)
    return Matrix(structure, (mask, fine, coarse))


def planes_of(parts: dict[int, Tensor]) -> Codes:
    """Where the planes of codes lie, by their widths."""
    held = Codes()
    for place, width in enumerate(reversed(bitpack.WIDTHS)):
        held.planes[place] = parts[width].data_ptr() if width in parts else None
    return held
