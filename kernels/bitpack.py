"""Pack small unsigned integers into bytes and back; knows nothing of scales or matrices.

A code of `bits` bits is split into planes whose widths divide a byte: 3 = 2 + 1, 5 = 4 + 1,
6 = 4 + 2. Plane `p` keeps `8 / p` neighbouring codes of a row in one byte, the first in the
low bits, so a row of K codes takes exactly ceil(K * p / 8) bytes.
"""

from __future__ import annotations

import torch
from torch import Tensor

WIDTHS = (8, 4, 2, 1)


def plane_widths(bits: int) -> tuple[int, ...]:
    """Widths of the planes that hold codes of `bits` bits, widest first."""
    if not 1 <= bits <= 8:
        raise ValueError(f"Codes take 1 to 8 bits, not {bits}.")
    return tuple(width for width in WIDTHS if bits & width)


def packed_columns(columns: int, width: int) -> int:
    """Bytes that one row of `columns` codes takes in a plane of `width` bits."""
    return -(-columns * width // 8)


def pack_plane(codes: Tensor, width: int) -> Tensor:
    """Pack codes below 2**width, [rows, columns], into bytes [rows, packed_columns]."""
    rows, columns = codes.shape
    per_byte = 8 // width
    codes = codes.to(torch.uint8)
    if padding := -columns % per_byte:
        codes = torch.nn.functional.pad(codes, (0, padding))
    codes = codes.contiguous().view(rows, -1, per_byte)
    packed = codes[..., 0].clone()
    for slot in range(1, per_byte):
        packed |= codes[..., slot] << (slot * width)
    return packed


def unpack_plane(packed: Tensor, width: int, columns: int) -> Tensor:
    """Undo `pack_plane`: bytes [rows, packed_columns] to codes [rows, columns], uint8."""
    if width == 8:
        return packed[:, :columns]
    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=packed.device)
    codes = (packed.unsqueeze(-1) >> shifts) & ((1 << width) - 1)
    return codes.flatten(1)[:, :columns]


def pack(codes: Tensor, bits: int) -> dict[int, Tensor]:
    """Split codes [rows, columns] into planes: width -> bytes [rows, packed_columns]."""
    planes, shift = {}, 0
    codes = codes.to(torch.uint8)
    for width in reversed(plane_widths(bits)):
        part = codes >> shift if shift else codes
        if shift + width < bits:
            part = part & ((1 << width) - 1)
        planes[width] = pack_plane(part, width)
        shift += width
    return planes


def unpack(planes: dict[int, Tensor], columns: int) -> Tensor:
    """Undo `pack`: planes to codes [rows, columns], uint8."""
    codes, shift = None, 0
    for width in sorted(planes):
        part = unpack_plane(planes[width], width, columns)
        codes = part if codes is None else codes | (part << shift)
        shift += width
    if codes is None:
        raise ValueError("Codes need at least one plane.")
    return codes
