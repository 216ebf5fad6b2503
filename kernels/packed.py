"""Matrices as formats hold them, read by the extension where they lie; nothing is laid out anew.

The extension decodes a few rows at a time into a core's cache and multiplies them by every
activation, in float32. `Matrix` says where the parts lie; it holds no bytes of its own.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels import bitpack, decode_step, extension
from kernels.decode_step import Product

Address, Number = ctypes.c_void_p, ctypes.c_int64


class _Packed(ctypes.Structure):
    _fields_ = (
        ("decode", Address),
        ("rows", Number),
        ("columns", Number),
    )


class _Codes(ctypes.Structure):
    _fields_ = (("planes", Address * 4),)


class _Dense(ctypes.Structure):
    _fields_ = (("shape", _Packed), ("numbers", Address))


class _IntegerGroups(ctypes.Structure):
    _fields_ = (
        ("shape", _Packed),
        ("codes", _Codes),
        ("zero_points", _Codes),
        ("group_size", Number),
        ("middle", ctypes.c_float),
        ("scales", Address),
        ("offsets", Address),
    )


class _Codebook(ctypes.Structure):
    _fields_ = (
        ("shape", _Packed),
        ("codes", _Codes),
        ("rows", Address),
        ("table", Address),
        ("size", Number),
        ("dimension", Number),
        ("scales", Address),
        ("group_size", Number),
    )


class _BinaryCodes(ctypes.Structure):
    _fields_ = (
        ("shape", _Packed),
        ("signs", Address),
        ("worth", Address),
        ("planes", Number),
        ("group_size", Number),
    )


class _Bitmask(ctypes.Structure):
    _fields_ = (("shape", _Packed), ("mask", Address), ("values", Address))


class _SignBlock(ctypes.Structure):
    _fields_ = (("shape", _Packed), ("signs", Address), ("left", Address), ("right", Address))


class _Transposed(ctypes.Structure):
    _fields_ = (("shape", _Packed), ("held", Address))


class _SumOfTwo(ctypes.Structure):
    _fields_ = (("shape", _Packed), ("first", Address), ("second", Address))


class _EntropyCoded(ctypes.Structure):
    _fields_ = (
        ("shape", _Packed),
        *((name, Address) for name in ("rest", "stream", "lengths", "bases", "starts")),
        ("first", Number),
        ("symbols", Number),
    )


class _Outliers(ctypes.Structure):
    _fields_ = (
        ("shape", _Packed),
        *((name, Address) for name in ("values", "positions", "ends")),
    )


@dataclass(frozen=True)
class Matrix:
    """Where the parts of a matrix lie, and what must stay alive as long as it is read."""

    structure: ctypes.Structure
    kept: tuple[object, ...] = field(default=(), repr=False)
    by: str = "multiply_packed"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.structure.shape.rows, self.structure.shape.columns

    @property
    def address(self) -> int:
        """Of the structure."""
        return ctypes.addressof(self.structure)

    def product(self) -> Product | None:
        """As a decode step in one call multiplies by it."""
        return decode_step.made(self.by, self.structure, *self.shape, self)

    def multiply(self, activation: Tensor) -> Tensor:
        """Activation [..., columns] of any floating type times the transpose, [..., rows]."""
        flat = activation.reshape(-1, self.shape[1]).to(torch.float32).contiguous()
        found = torch.empty(flat.shape[0], self.shape[0])
        extension.library().multiply_many(
            Address(self.address), Address(flat.data_ptr()), Number(flat.shape[0]),
            Address(found.data_ptr()),
        )  # fmt: skip
        return found.to(activation.dtype).view(*activation.shape[:-1], self.shape[0])

    def take(self, places: Tensor) -> Tensor:
        """Rows [number of rows, columns] by their places, in float32."""
        places = places.to(torch.int64).contiguous()
        found = torch.empty(places.numel(), self.shape[1])
        extension.library().decode_some(
            Address(self.address), Address(places.data_ptr()), Number(places.numel()),
            Address(found.data_ptr()),
        )  # fmt: skip
        return found

    def dense(self) -> Tensor:
        """The matrix in float32."""
        found = torch.empty(self.shape)
        extension.library().decode_all(Address(self.address), Address(found.data_ptr()))
        return found


def dense(numbers: Tensor) -> Matrix | None:
    """Of numbers [rows, columns] in float32 or bfloat16."""
    name = {torch.float32: "decode_float32", torch.bfloat16: "decode_bfloat16"}
    if numbers.dtype not in name or not _here(numbers):
        return None
    shape = _shape(name[numbers.dtype], *numbers.shape)
    return Matrix(_Dense(shape, numbers.data_ptr()), (numbers,))


def integers(
    codes: dict[int, Tensor],
    columns: int,
    scales: Matrix | None,
    *,
    bits: int,
    group_size: int,
    offsets: Matrix | None = None,
    zero_points: dict[int, Tensor] | None = None,
) -> Matrix | None:
    """Of codes in groups: planes by width, and a scale and perhaps an offset a group."""
    if scales is None or not _here(*codes.values()):
        return None
    rows = next(iter(codes.values())).shape[0]
    structure = _IntegerGroups(
        _shape("decode_integers", rows, columns),
        _planes(codes),
        _planes(zero_points or {}),
        group_size,
        float(1 << (bits - 1)),
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
    if not _here(table, *codes.values()):
        return None
    own = table.dtype == torch.bfloat16
    size = table.shape[1] if own else table.shape[0]
    structure = _Codebook(
        _shape("decode_codebook", next(iter(codes.values())).shape[0], columns),
        _planes(codes),
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
    if not _here(*planes.values()):
        return bitpack.unpack(planes, columns).to(torch.float32)
    found = torch.empty(len(next(iter(planes.values()))), columns)
    extension.library().unpack_codes(
        ctypes.byref(_planes(planes)), Number(len(found)), Number(columns),
        Address(found.data_ptr()),
    )  # fmt: skip
    return found


def binary(signs: Tensor, columns: int, worth: Matrix | None, group_size: int) -> Matrix | None:
    """Of signs [planes, rows, bytes], and scales of each plane, then offsets.

    Those lie as [(planes + 1) * rows, groups].
    """
    if worth is None or not _here(signs):
        return None
    planes, rows = signs.shape[:2]
    structure = _BinaryCodes(
        _shape("decode_binary", rows, columns), signs.data_ptr(), worth.address, planes, group_size
    )
    return Matrix(structure, (signs, worth))


def bitmask(mask: Tensor, columns: int, values: Matrix | None) -> Matrix | None:
    """Of a mask [rows, bytes] and the values [1, kept] that it marks."""
    if values is None or not _here(mask):
        return None
    shape = _shape("decode_bitmask", mask.shape[0], columns)
    return Matrix(_Bitmask(shape, mask.data_ptr(), values.address), (mask, values))


def two_of_four(positions: Tensor, values: Matrix | None) -> Matrix | None:
    """Of positions [rows, bytes] of two bits and values [rows, columns / 2]."""
    if values is None or not _here(positions):
        return None
    rows, half = values.shape
    shape = _shape("decode_two_of_four", rows, 2 * half)
    return Matrix(_Bitmask(shape, positions.data_ptr(), values.address), (positions, values))


def signs(positive: Tensor, left: Matrix | None, right: Matrix | None) -> Matrix | None:
    """Of signs [rows, bytes] and the factors of the sizes."""
    if left is None or right is None or not _here(positive):
        return None
    shape = _shape("decode_signs", left.shape[0], right.shape[1])
    structure = _SignBlock(shape, positive.data_ptr(), left.address, right.address)
    return Matrix(structure, (positive, left, right), "multiply_signs")


def entropy(
    rest: Tensor, stream: Tensor, lengths: Tensor, bases: Tensor, starts: Tensor, first: int
) -> Matrix | None:
    """Of bytes [rows, columns] whose exponents lie in a stream of lanes."""
    if not _here(rest, stream, lengths, bases, starts):
        return None
    parts = (rest, stream, lengths, bases, starts)
    shape = _shape("decode_entropy", *rest.shape)
    addresses = (part.data_ptr() for part in parts)
    return Matrix(_EntropyCoded(shape, *addresses, first, lengths.numel()), parts)


def outliers(values: Tensor, positions: Tensor, ends: Tensor, columns: int) -> Product | None:
    """A product with sparse entries, row after row; `ends` [rows] counts them."""
    if not _here(values, positions, ends):
        return None
    shape = _Packed(None, ends.numel(), columns)
    structure = _Outliers(shape, values.data_ptr(), positions.data_ptr(), ends.data_ptr())
    kept = values, positions, ends
    return decode_step.made("multiply_outliers", structure, ends.numel(), columns, *kept)


def transposed(held: Matrix | None) -> Matrix | None:
    """The transpose of a matrix."""
    if held is None:
        return None
    rows, columns = held.shape
    structure = _Transposed(_shape("decode_transposed", columns, rows), held.address)
    return Matrix(structure, (held,))


def total(first: Matrix | None, second: Matrix | None) -> Matrix | None:
    """The sum of two matrices of one shape."""
    if first is None or second is None:
        return None
    structure = _SumOfTwo(_shape("decode_sum", *first.shape), first.address, second.address)
    return Matrix(structure, (first, second))


def mixed(mask: Tensor, rows: int, fine: Matrix | None, coarse: Matrix | None) -> Matrix | None:
    """Rows of two matrices, told apart by a bit a row."""
    if fine is None or coarse is None or not _here(mask):
        return None
    shape = _shape("decode_mixed", rows, fine.shape[1])
    structure = _SignBlock(shape, mask.data_ptr(), fine.address, coarse.address)
    return Matrix(structure, (mask, fine, coarse))


def _here(*parts: Tensor) -> bool:
    """Whether the extension can read these where they lie."""
    usual = all(part.device.type == "cpu" and part.is_contiguous() for part in parts)
    return usual and extension.library() is not None


def _shape(decode: str, rows: int, columns: int) -> _Packed:
    address = ctypes.cast(getattr(extension.library(), decode), Address).value
    return _Packed(address, rows, columns)


def _planes(parts: dict[int, Tensor]) -> _Codes:
    held = _Codes()
    for place, width in enumerate(reversed(bitpack.WIDTHS)):
        held.planes[place] = parts[width].data_ptr() if width in parts else None
    return held
