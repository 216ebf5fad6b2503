"""Integer grids that quantisers share: ranges of groups, codes, and a budget met row by row.

A budget between two code widths is met by giving some rows of a matrix the wider codes. One
bit a row tells them apart. So every budget is reached to within one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.errors import OutOfReachError
from backend.later import torch

if TYPE_CHECKING:
    from torch import Tensor

WIDTHS = (1, 2, 3, 4, 5, 6, 8)
LOWEST, HIGHEST = 1.25, 9.0  # codes of 1 and 8 bits, 32 bits to a group of 128 and of 32
TINY = 1e-8
PIECE = 1 << 19  # numbers that are rounded at a time


@dataclass(frozen=True)
class Plan:
    """Code widths of a matrix: `fine` for `fine_rows` of its rows, `coarse` for the rest."""

    fine: int
    coarse: int
    fine_rows: int
    group_size: int
    symmetric: bool

    def nbytes(self, rows: int, columns: int) -> int:
        """What a matrix [rows, columns] held as planned takes."""

        def part(count: int, width: int) -> int:
            return count * width_bits(columns, width, self.group_size, self.symmetric) // 8

        if self.fine == self.coarse or self.fine_rows == 0:
            return part(rows, self.coarse)
        fine = part(self.fine_rows, self.fine)
        return -(-rows // 8) + fine + part(rows - self.fine_rows, self.coarse)


def overhead(columns: int, group_size: int, symmetric: bool) -> float:
    """Bits per weight of scales, and of offsets unless symmetric, 16 bits each a group."""
    groups = -(-columns // group_size)
    return groups * (16 if symmetric else 32) / columns


def code_bits(columns: int, width: int) -> int:
    """Bits that the codes of one row take: planes fill whole bytes of it."""
    return 8 * sum(-(-columns * plane // 8) for plane in (8, 4, 2, 1) if width & plane)


def width_bits(columns: int, width: int, group_size: int, symmetric: bool) -> int:
    """Bits that a row takes in codes of one width, its scales and offsets counted."""
    return code_bits(columns, width) + round(columns * overhead(columns, group_size, symmetric))


def split(rows: int, budget: float, costs: dict[int, int]) -> tuple[int, int, int] | None:
    """Widths of the finer and of the coarser rows, and how many are finer; None if none fits.

    Args:
        rows: of the matrix.
        budget: bits for all of them.
        costs: bits that one row takes at each width.
    """
    budget += 1e-6
    fitting = [width for width, cost in costs.items() if rows * cost <= budget]
    if not fitting:
        return None
    coarse = max(fitting)
    wider = [width for width in costs if width > coarse]
    if not wider:
        return coarse, coarse, rows
    fine = min(wider)
    mask = 8 * -(-rows // 8)
    spare = budget - rows * costs[coarse] - mask
    fine_rows = int(spare // (costs[fine] - costs[coarse])) if spare > 0 else 0
    return fine, coarse, min(fine_rows, rows - 1)


def split_bytes(rows: int, costs: dict[int, int], fine: int, coarse: int, fine_rows: int) -> int:
    """Bytes of rows split so, the mask counted where there are both."""
    if fine == coarse or not fine_rows:
        return rows * costs[coarse] // 8
    return -(-rows // 8) + (fine_rows * costs[fine] + (rows - fine_rows) * costs[coarse]) // 8


def too_little(rows: int, columns: int, bits: float, least: int, way: str) -> OutOfReachError:
    """The refusal of a matrix whose rows take `least` bits each at the narrowest."""
    return OutOfReachError(
        f"A matrix of {rows} x {columns} {way} takes {least / columns:.2f} bits a "
        f"weight or more, not {bits:g}; ask for more bits."
    )


def plan(rows: int, columns: int, bits: float, group_size: int, symmetric: bool) -> Plan:
    """The widest codes that hold a matrix [rows, columns] in `bits` bits a weight.

    Raises:
        OutOfReachError: one-bit codes take more than that.
    """
    group_size = min(group_size or columns, columns)
    widths = WIDTHS[1:] if symmetric else WIDTHS  # one bit needs a middle of its own
    costs = {w: width_bits(columns, w, group_size, symmetric) for w in widths}
    found = split(rows, bits * rows * columns, costs)
    if found is None:
        way = f"in groups of {group_size}"
        raise too_little(rows, columns, bits, costs[widths[0]], way)
    return Plan(*found, group_size, symmetric)


def ranges(groups: Tensor, width: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Scale and offset of groups [..., size]: rounded to bfloat16, as they are held.

    The middle code, 2**(width - 1), stands for the offset. One-bit codes stand for the mean
    plus and minus the mean distance from it, which is what a binary grid is best at.
    """
    half = 1 << (width - 1)
    if width == 1:
        middle = groups.mean(-1)
        spread = (groups - middle.unsqueeze(-1)).abs().mean(-1)
        return in_16_bits(2 * spread).clamp(min=TINY), in_16_bits(middle + spread)
    if symmetric:
        scale = in_16_bits(groups.abs().amax(-1) / (half - 0.5)).clamp(min=TINY)
        return scale, torch.zeros_like(scale)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scale = in_16_bits((high - low) / (2 * half - 1)).clamp(min=TINY)
    return scale, in_16_bits(low + half * scale)


def encode(weight: Tensor, scale: Tensor, offset: Tensor, width: int) -> Tensor:
    """Nearest codes of a weight, given scales and offsets of its shape."""
    half = 1 << (width - 1)
    return (weight - offset).div_(scale).add_(half).round_().clamp_(0, 2 * half - 1)


def decode(codes: Tensor, scale: Tensor, offset: Tensor, width: int) -> Tensor:
    """Weights that codes stand for."""
    return (codes.to(scale.dtype) - (1 << (width - 1))) * scale + offset


def fine_mask(errors: Tensor, plan: Plan) -> Tensor:
    """The rows that get the wider codes: those with the largest errors [rows]."""
    mask = torch.zeros_like(errors, dtype=torch.bool)
    mask[errors.topk(plan.fine_rows).indices] = True
    return mask


def hold(
    codes: Tensor, scales: Tensor, offsets: Tensor, mask: Tensor, plan: Plan
) -> formats.Format:
    """Codes [rows, columns] with scales and offsets [rows, groups], held as planned.

    Rows where `mask` is true have codes of the fine width, the others of the coarse one.
    """
    codes = codes.to(torch.uint8).contiguous()

    def part(rows: Tensor | slice, width: int) -> formats.IntegerGroups:
        return formats.IntegerGroups.pack(
            codes[rows],
            scales[rows],
            None if plan.symmetric else offsets[rows],
            bits=width,
            group_size=plan.group_size,
        )

    if plan.fine == plan.coarse or plan.fine_rows == 0:
        return part(slice(None), plan.coarse)
    return formats.Rows.pack(mask, part(mask, plan.fine), part(~mask, plan.coarse))


def grouped(weight: Tensor, group_size: int) -> Tensor:
    """Weight [rows, columns] as groups [rows, groups, size]; the last repeats its last column."""
    short = -weight.shape[1] % group_size
    if short:
        weight = torch.cat([weight, weight[:, -1:].expand(-1, short)], dim=1)
    return weight.view(weight.shape[0], -1, group_size)


def round_to_nearest(
    weight: Tensor, width: int, group_size: int, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest grid points: codes [rows, columns] in uint8, scales and offsets [rows, groups]."""
    found = []
    for part in _pieces(weight):
        groups = grouped(part, group_size)
        scale, offset = ranges(groups, width, symmetric)
        codes = encode(groups, scale.unsqueeze(-1), offset.unsqueeze(-1), width)
        codes = codes.flatten(1)[:, : weight.shape[1]].to(torch.uint8)
        found.append((codes, scale, offset))
    codes, scales, offsets = (torch.cat(parts) for parts in zip(*found, strict=True))
    return codes, scales, offsets


def rounding_error(weight: Tensor, width: int, group_size: int, symmetric: bool) -> Tensor:
    """What rounding to the nearest of a grid changes in each weight [rows, columns]."""
    groups = grouped(weight, group_size)
    scale, offset = (part.unsqueeze(-1) for part in ranges(groups, width, symmetric))
    change = encode(groups, scale, offset, width)
    change.sub_(1 << (width - 1)).mul_(scale).add_(offset).sub_(groups)
    return change.flatten(1)[:, : weight.shape[1]]


def nearest(weight: Tensor, plan: Plan) -> formats.Format:
    """A weight [rows, columns] at its nearest grid points; rows with large errors are finer."""
    settings = plan.group_size, plan.symmetric
    held = round_to_nearest(weight, plan.coarse, *settings)
    mask = torch.zeros(weight.shape[0], dtype=torch.bool, device=weight.device)
    if plan.fine != plan.coarse and plan.fine_rows:
        errors = [
            rounding_error(part, plan.coarse, *settings).square_().sum(1)
            for part in _pieces(weight)
        ]
        mask = fine_mask(torch.cat(errors), plan)
        for mine, finer in zip(
            held, round_to_nearest(weight[mask], plan.fine, *settings), strict=True
        ):
            mine[mask] = finer
    return hold(*held, mask, plan)


def _pieces(weight: Tensor) -> tuple[Tensor, ...]:
    """Rows of a weight in parts that stay in a cache while they are worked on."""
    return weight.split(max(1, PIECE // weight.shape[1]))


def in_16_bits(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16).to(torch.float32)
