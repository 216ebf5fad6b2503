"""Hold two of every four neighbouring entries: values and a two-bit position for each.

Values lie in [rows, columns / 2] in order of position, positions in a plane of two bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import bitpack


def compact(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Values [rows, columns / 2] and packed positions of a weight with two kept in four."""
    rows, columns = weight.shape
    fours = mask.view(rows, columns // 4, 4)
    if columns % 4 or not bool((fours.sum(-1) == 2).all()):
        raise ValueError("A 2:4 mask keeps exactly two of every four neighbours in a row.")
    positions = fours.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :2]
    values = weight.view(rows, -1, 4).gather(2, positions).reshape(rows, -1)
    return values, bitpack.pack_plane(positions.reshape(rows, -1), 2)


def expand(values: Tensor, packed_positions: Tensor) -> Tensor:
    """Undo `compact`: dense [rows, columns]."""
    rows, half = values.shape
    positions = bitpack.unpack_plane(packed_positions, 2, half).to(torch.int64)
    dense = torch.zeros(rows, half // 2, 4, dtype=values.dtype, device=values.device)
    dense.scatter_(2, positions.view(rows, -1, 2), values.view(rows, -1, 2))
    return dense.view(rows, -1)
