"""Numbers of a matrix set so that its outputs change least: conjugate gradients, row by row.

A row of a weight w is stood in for by a linear map of a few free numbers z: its kept weights, or
the scales of its codes. What the outputs lose, (w - B z) H (w - B z)^T, is a parabola in z, and
all rows go down theirs at once. Maps may differ from row to row; the Hessian is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backend.later import torch
from backend.methods.quantise import _grid

if TYPE_CHECKING:
    from torch import Tensor


def descend(
    target: Tensor,
    start: Tensor,
    hessian: Tensor,
    spread: Callable[[Tensor], Tensor],
    gather: Callable[[Tensor], Tensor],
    *,
    weights: Tensor,
    steps: int,
) -> Tensor:
    """Free numbers [rows, free] that lose less than those at the start, or these.

    Args:
        target: the rows as they should be, [rows, columns].
        start: free numbers to begin with, [rows, free].
        hessian: of the outputs, [columns, columns].
        spread: rows [rows, columns] that free numbers stand for.
        gather: its transpose, from [rows, columns] to [rows, free].
        weights: about how much each free number bends its row's loss, [rows, free]; 0 where a
            number stays as it is.
        steps: at most as many; a row stops where its parabola ends.
    """
    found = start.clone()
    weights = torch.where(weights > 0, weights, torch.inf)
    left = gather((target - spread(found)) @ hessian)
    direction = left / weights
    size = (left * direction).sum(1, keepdim=True)
    for _ in range(steps):
        change = spread(direction)
        along = change @ hessian
        bend = (change * along).sum(1, keepdim=True)
        step = torch.where(bend > 1e-30, size / bend, 0.0)
        found += step * direction
        left -= step * gather(along)
        scaled = left / weights
        after = (left * scaled).sum(1, keepdim=True)
        direction = scaled + torch.where(size > 1e-30, after / size, 0.0) * direction
        size = after
    return _better(found, start, target, hessian, spread)


def settle(
    target: Tensor,
    start: Tensor,
    hessian: Tensor,
    spread: Callable[[Tensor], Tensor],
    gather: Callable[[Tensor], Tensor],
    *,
    weights: Tensor,
    steps: int,
) -> Tensor:
    """As `descend`, in 16 bits; those at the start where rounding undoes what was gained."""
    found = descend(target, start, hessian, spread, gather, weights=weights, steps=steps)
    return _better(_grid.in_16_bits(found), start, target, hessian, spread)


def feasible(hessian: Tensor, steps: int) -> int:
    """Steps to go down: none where the Hessian bends some way upwards, which has no foot."""
    return 0 if torch.linalg.cholesky_ex(hessian).info else steps


def _better(
    found: Tensor,
    start: Tensor,
    target: Tensor,
    hessian: Tensor,
    spread: Callable[[Tensor], Tensor],
) -> Tensor:
    """Of two sets of free numbers that with which each row loses less."""
    better = loss(target, spread(found), hessian) < loss(target, spread(start), hessian)
    return torch.where(better.unsqueeze(1), found, start)


def loss(target: Tensor, rows: Tensor, hessian: Tensor) -> Tensor:
    """What outputs lose with other rows [rows, columns], by row."""
    change = target - rows
    return ((change @ hessian) * change).sum(1)
