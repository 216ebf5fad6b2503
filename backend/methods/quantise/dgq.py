"""DGQ: groups of four bits whose scales are whole multiples of one number a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.later import torch
from backend.methods.base import LayerMethod, Needs, Outline, Stage, setting
from backend.methods.quantise import _grid, _group_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

WIDTH = 4
TOP = (1 << WIDTH) - 1
LARGEST = 127 // TOP  # multiple of a row's number with which every weight is still an int8
SHARES = tuple(1 - 0.04 * step for step in range(14))
"""Of the whole range, for a group; of the largest scale, for a row."""


@dataclass(frozen=True)
class Dgq(LayerMethod):
    """Hold groups in four bits that unfold to eight-bit integers with one scale a row.

    Both grains are searched one after the other. First each group tries how much of its range its
    16 values should span, and keeps what changes the outputs least. Then each row tries numbers of
    which all its groups' scales become whole multiples, from one to eight, each one of the four
    next to what was found, and keeps the number with which the row's outputs change least. So a
    weight is an integer of eight bits times the row's number, and a product can stay among
    integers.
    """

    stage = Stage.QUANTISE
    needs = Needs.HESSIAN
    pace = 6.0
    paper = "arXiv 2310.04836"
    claim = "Products with 8-bit activations run 3.24x as fast as with 16-bit ones."
    limits = "Activations stay as they are; the paper clips them at a percentile to 8 bits."
    accepts = ("dense", "low-rank")
    yields = ("integer-groups", "rows")

    bits: float = setting(5.0, "Bits per weight, all scales counted.", low=4.02, high=5.0)
    damping: float = setting(
        0.01, "Share of the mean diagonal added to the Hessian.", low=1e-4, high=1.0
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """At most the budget: which rows do better in small groups is known once they are seen."""
        self.sizes(rows, columns)
        return super().outline(rows, columns)

    def sizes(self, rows: int, columns: int) -> tuple[_group_sizes.Split, dict[int, int]]:
        """How rows are split between two sizes of group, and bits of a row by size.

        Raises:
            OutOfReachError: one group a row takes more than the budget.
        """
        codes = _grid.code_bits(columns, WIDTH)

        def cost(groups: int) -> int:
            return codes + 8 * groups + _grid.code_bits(groups, WIDTH) + 16

        return _group_sizes.split(rows, columns, self.bits, cost, "in two grains")

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Round a weight [rows, columns] to where the outputs change least."""
        (fine, coarse, fine_rows), costs = self.sizes(*weight.shape)
        weight = statistics.alive(weight)
        hessian = statistics.damped(self.damping)
        larger = [place for place in costs if place < coarse]
        if fine == coarse and larger:  # a row may still do better in larger groups
            coarse, fine_rows = max(larger), len(weight)
        narrow = _Rows(weight, hessian, coarse)
        if fine == coarse or not fine_rows:
            return narrow.held(slice(None))
        wide = _Rows(weight, hessian, fine)
        gains = narrow.losses - wide.losses
        mask = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
        mask[gains.topk(fine_rows).indices] = True
        better = mask & (gains > 0)
        count = int(better.sum())
        taken = _grid.split_bytes(len(weight), costs, fine, coarse, count)
        if count == len(weight) or 8 * taken > self.bits * weight.numel() + 1e-6:
            return wide.held(slice(None))  # a mask may take more than a few larger groups save
        if not count:
            return narrow.held(slice(None))
        return formats.Rows.pack(better, wide.held(better), narrow.held(~better))


class _Rows:
    """Rows in groups of one size: codes, zero points, multiples, numbers and losses [rows]."""

    def __init__(self, weight: Tensor, hessian: Tensor, place: int) -> None:
        """Search steps for a weight [rows, columns] in groups of the size at a place."""
        self._size = size = _group_sizes.GROUPS[place] or weight.shape[1]
        groups = _grid.grouped(weight, size)
        widest = (groups.amax(-1).clamp(min=0) - groups.amin(-1).clamp(max=0)) / TOP
        scales, _ = searched(weight, hessian, size, [share * widest for share in SHARES])
        largest = scales.amax(1, keepdim=True) / LARGEST
        self._number, self._multiples = largest, torch.ones_like(scales)
        least = torch.full_like(largest, torch.inf)
        for share in SHARES:
            number = _grid.in_16_bits(share * largest).clamp(min=_grid.TINY)
            lower = (scales / number).floor()
            around = [number * (lower + more).clamp(1, LARGEST) for more in (0, 1, -1, 2)]
            steps, lost = searched(weight, hessian, size, around)
            better = lost < least
            least = torch.where(better, lost, least)
            self._number = torch.where(better, number, self._number)
            self._multiples = torch.where(better, (steps / number).round_(), self._multiples)
        codes, self._zeros = encoded(groups, self._multiples * self._number)
        self._codes = codes.flatten(1)[:, : weight.shape[1]]
        self.losses = least.squeeze(1)

    def held(self, rows: Tensor | slice) -> Format:
        """Some of the rows; a multiple lies around the middle of its eight bits."""
        multiples = self._multiples[rows] + 128
        scales = formats.IntegerGroups.pack(
            multiples, self._number[rows], bits=8, group_size=multiples.shape[1]
        )
        return formats.IntegerGroups.pack(
            self._codes[rows],
            scales,
            bits=WIDTH,
            group_size=self._size,
            zero_points=self._zeros[rows],
        )


def searched(
    weight: Tensor, hessian: Tensor, size: int, choices: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Of several steps for each group [rows, groups] those of least loss, and that loss [rows, 1].

    Groups are searched one after another, each beside what those before it have changed, so that
    errors of one sign do not add up unseen.

    Args:
        weight: [rows, columns].
        hessian: of the outputs, [columns, columns].
        size: columns of a group.
        choices: steps between the 16 values of each group, [rows, groups] each.
    """
    change, chosen = torch.zeros_like(weight), []
    total = weight.new_zeros(len(weight), 1)
    for place, start in enumerate(range(0, weight.shape[1], size)):
        own = slice(start, min(start + size, weight.shape[1]))
        group, block = weight[:, None, own], hessian[own, own]
        carried = 2 * change[:, :start] @ hessian[:start, own]
        best = choices[0][:, place, None]
        least = torch.full_like(best, torch.inf)
        for choice in choices:
            step = choice[:, place, None].clamp(min=_grid.TINY)
            codes, zeros = encoded(group, step)
            found = ((codes - zeros.unsqueeze(-1)) * step.unsqueeze(-1) - group).squeeze(1)
            lost = ((found @ block + carried) * found).sum(1, keepdim=True)
            better = lost < least
            best, least = torch.where(better, step, best), torch.where(better, lost, least)
            change[:, own] = torch.where(better, found, change[:, own])
        chosen.append(best)
        total = total + least
    return torch.cat(chosen, dim=1), total


def encoded(groups: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [rows, groups, size] and zero points [rows, groups], the range cut at both ends alike.

    Args:
        groups: weights.
        scales: the step of each group, [rows, groups].
    """
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    share = TOP * scales / (high - low).clamp(min=_grid.TINY)
    zeros = (-low * share.clamp(max=1) / scales).round_().clamp_(0, TOP)
    codes = (groups / scales.unsqueeze(-1) + zeros.unsqueeze(-1)).round_().clamp_(0, TOP)
    return codes, zeros
