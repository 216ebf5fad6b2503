"""A few weights kept apart in 16 bits: how many, what that takes, and beside what they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend import formats
from backend.later import torch

if TYPE_CHECKING:
    from torch import Tensor

    from backend.formats import Format

LEAST = 4  # weights a row, below which saying where a row's end costs too much beside them
ENTRY, ROW = 32, 32  # bits of a value with its column, and of where a row's entries end


def count(rows: int, columns: int, share: float) -> int:
    """How many weights of a matrix are kept apart; none where rows would hold under four."""
    found = int(share * rows * columns)
    return found if found >= LEAST * rows and columns <= 1 << 16 else 0


def bits(rows: int, apart: int) -> int:
    """Bits that they take."""
    return apart * ENTRY + rows * ROW if apart else 0


def largest(scores: Tensor, apart: int) -> Tensor:
    """True for the `apart` highest scores of a matrix [rows, columns]."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().topk(apart).indices] = True
    return mask.view(scores.shape)


def beside(base: Format, values: Tensor, mask: Tensor) -> Format:
    """What is held of all, and of the weights apart what is missing from their values there."""
    if not bool(mask.any()):
        return base
    missing = torch.where(mask, values - base.dense(), 0.0)
    return formats.Sum.of(base=base, outliers=formats.Outliers.pack(missing, mask))
