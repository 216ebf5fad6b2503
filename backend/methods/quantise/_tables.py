"""What quantisers share whose weights are entries of one table, times a scale to each group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backend import formats
from backend.later import torch
from backend.methods.quantise import _grid

if TYPE_CHECKING:
    from torch import Tensor

    from backend.formats import Format

TableOf = Callable[["Tensor", int], "Tensor"]
Split = tuple[int, int, int]
"""Bits of the finer rows' codes, of the coarser rows', and how many rows are finer."""

REACHES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
"""Where the last entry of a table lies, as a share of the largest weight of a group."""


def widths(
    shape: tuple[int, int], budget: float, group_size: int, known: tuple[int, ...]
) -> Split | None:
    """How rows of a matrix [rows, columns] are split so that `budget` bits hold all; None if none.

    A table for each width counts; both, where there are two.
    """
    rows, columns = shape
    scales = 16 * -(-columns // group_size)
    costs = {width: _grid.code_bits(columns, width) + scales for width in known}
    best: Split | None = None
    for place, coarse in enumerate(known):
        spare = budget - rows * costs[coarse] - (16 << coarse)
        if spare < 0:
            break
        best = coarse, coarse, 0
        if place + 1 < len(known):
            fine = known[place + 1]
            spare -= 8 * -(-rows // 8) + (16 << fine)
            count = int(max(0.0, spare) // (costs[fine] - costs[coarse]))
            best = (fine, coarse, min(count, rows - 1)) if count else best
    return best


def nbytes(shape: tuple[int, int], group_size: int, split: Split) -> int:
    """What a matrix held so takes."""
    rows, columns = shape
    fine, coarse, count = split
    scales = 16 * -(-columns // group_size)
    costs = {width: _grid.code_bits(columns, width) + scales for width in (fine, coarse)}
    tables = sum(2 << width for width in ({fine, coarse} if count else {coarse}))
    return _grid.split_bytes(rows, costs, fine, coarse, count) + tables


def hold(
    weight: Tensor,
    group_size: int,
    split: Split,
    counts: Tensor,
    table_of: TableOf,
) -> Format:
    """A weight [rows, columns] in codes, the rows that lose most in the finer ones.

    Args:
        weight: what is held.
        group_size: weights that share a scale.
        split: how many rows are how fine.
        counts: how much an error counts, [rows, columns].
        table_of: from groups whose largest size is 1, and bits, to a table that rises from -1 to 1.
    """
    fine, coarse, count = split
    narrow = coded(weight, group_size, coarse, table_of, counts)
    if not count:
        return narrow
    losses = ((narrow.dense() - weight).square() * counts).sum(1)
    mask = torch.zeros(weight.shape[0], dtype=torch.bool, device=weight.device)
    mask[losses.topk(count).indices] = True
    parts = (
        coded(weight[chosen], group_size, width, table_of, counts[chosen])
        for chosen, width in ((mask, fine), (~mask, coarse))
    )
    return formats.Rows.pack(mask, *parts)


def coded(
    weight: Tensor, group_size: int, width: int, table_of: TableOf, counts: Tensor
) -> formats.TableCodes:
    """A weight [rows, columns], each at the entry nearest to its share of its group's scale.

    Every group tries how far its last entry should reach, and holds what loses least.
    """
    groups, worth = (_grid.grouped(one, group_size) for one in (weight, counts))
    largest = groups.abs().amax(-1, keepdim=True).clamp(min=_grid.TINY)
    table = _grid.in_16_bits(table_of(groups / largest, width))
    codes, scales, _ = reached(groups, worth, table)
    codes = codes.flatten(1)[:, : weight.shape[1]].to(torch.uint8)
    return formats.TableCodes.pack(codes, table, scales, group_size)


def reached(groups: Tensor, worth: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of groups [..., size], and scale and loss of each, at the reach that loses least."""
    largest = groups.abs().amax(-1)
    best, least = largest, torch.full_like(largest, torch.inf)
    codes = torch.zeros_like(groups, dtype=torch.int64)
    for reach in REACHES:
        scales = _grid.in_16_bits(reach * largest).clamp(min=_grid.TINY)
        found = nearest(groups / scales.unsqueeze(-1), table)
        losses = ((table[found] * scales.unsqueeze(-1) - groups).square() * worth).sum(-1)
        better = losses < least
        best, least = torch.where(better, scales, best), torch.where(better, losses, least)
        codes = torch.where(better.unsqueeze(-1), found, codes)
    return codes, best, least


def nearest(values: Tensor, table: Tensor) -> Tensor:
    """The place of the nearest entry of a rising table."""
    return torch.bucketize(values.contiguous(), (table[1:] + table[:-1]) / 2)
