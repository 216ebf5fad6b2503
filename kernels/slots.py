"""The layout of the Triton products: codes in words of 16 bits, made when a weight is loaded.

A row is cut into tiles of `tile` columns. In a tile, the plane of width p takes tile * p / 16
words; column k lies in word k % words, at slot k // words, p bits a slot from the low end. So one
shift and one mask give a run of neighbouring columns from neighbouring words. Planes follow each
other in the tile, the widest, which holds the high bits of the code, first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import bitpack

WIDEST_TILE = 128


def tile_of(group_size: int, columns: int) -> int:
    """Columns of a tile: a group, or a part of 128 columns of a longer one.

    Raises:
        ValueError: groups are not a power of two from 16 on.
    """
    if group_size >= columns:
        return WIDEST_TILE
    if group_size < 16 or group_size & (group_size - 1):
        raise ValueError(
            f"Groups of {group_size} columns do not fill words; "
            "take a power of two from 16 on, or one group a row."
        )
    return min(group_size, WIDEST_TILE)


def padded_columns(columns: int, tile: int) -> int:
    """Columns up to the end of the last tile."""
    return -(-columns // tile) * tile


def pack(codes: Tensor, bits: int, tile: int) -> Tensor:
    """Codes [rows, columns] below 2**bits as words [rows, padded * bits / 16], int16."""
    rows, columns = codes.shape
    padding = padded_columns(columns, tile) - columns
    codes = torch.nn.functional.pad(codes.to(torch.int32), (0, padding)).view(rows, -1, tile)
    planes, shift = [], bits
    for width in bitpack.plane_widths(bits):
        shift -= width
        slots = ((codes >> shift) & ((1 << width) - 1)).unflatten(2, (16 // width, -1))
        places = torch.arange(0, 16, width, dtype=torch.int32, device=codes.device)
        planes.append((slots << places.unsqueeze(1)).sum(2, dtype=torch.int32))
    words = torch.cat(planes, 2).flatten(1)
    return torch.where(words >= 1 << 15, words - (1 << 16), words).to(torch.int16)


def unpack(words: Tensor, bits: int, tile: int, columns: int) -> Tensor:
    """Undo `pack`: codes [rows, columns], uint8."""
    wide = (words.to(torch.int32) & 0xFFFF).view(words.shape[0], -1, tile * bits // 16)
    codes, first, shift = None, 0, bits
    for width in bitpack.plane_widths(bits):
        shift -= width
        count = tile * width // 16
        places = torch.arange(0, 16, width, dtype=torch.int32, device=words.device)
        plane = wide[:, :, first : first + count].unsqueeze(2) >> places.unsqueeze(1)
        part = ((plane & ((1 << width) - 1)) << shift).flatten(2)
        codes = part if codes is None else codes | part
        first += count
    if codes is None:
        raise ValueError("Codes need at least one plane.")
    return codes.flatten(1)[:, :columns].to(torch.uint8)
