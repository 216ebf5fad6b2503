"""Compact the kept entries of a matrix behind a bitmask, and lay them out again.

The mask takes one bit an entry, packed along rows as in `kernels.bitpack`; the kept values
follow each other row by row. Any pattern fits: unstructured, N:M, whole rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import bitpack


def compact(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Packed mask [rows, ceil(columns / 8)] and kept values [kept] of a weight [rows, columns]."""
    return bitpack.pack_plane(mask.to(torch.uint8), 1), weight[mask]


def expand(packed_mask: Tensor, values: Tensor, columns: int) -> Tensor:
    """Undo `compact`: dense [rows, columns] with zeros where the mask has none."""
    mask = bitpack.unpack_plane(packed_mask, 1, columns).to(torch.bool)
    dense = torch.zeros(mask.shape, dtype=values.dtype, device=values.device)
    return dense.masked_scatter_(mask, values)
