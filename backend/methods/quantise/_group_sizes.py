"""A budget met by the size of groups: rows that lose most get smaller ones, one bit a row."""

from __future__ import annotations

from collections.abc import Callable

from backend.methods.quantise import _grid

GROUPS = (0, 256, 128, 64, 32)
"""Weights that share a scale, the cheapest first; 0 for a whole row."""

Split = tuple[int, int, int]
"""Places in GROUPS of the finer and of the coarser rows, and how many are finer."""


def split(
    rows: int, columns: int, bits: float, cost: Callable[[int], int], way: str
) -> tuple[Split, dict[int, int]]:
    """How rows are split, and what a row takes by place in GROUPS.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        bits: a weight, at most.
        cost: bits of a row in so many groups.
        way: how a matrix is held, for the refusal.

    Raises:
        OutOfReachError: one group a row takes more than the budget.
    """
    costs = {
        place: cost(-(-columns // (size or columns)))
        for place, size in enumerate(GROUPS)
        if size < columns
    }
    found = _grid.split(rows, bits * rows * columns, costs)
    if found is None:
        raise _grid.too_little(rows, columns, bits, costs[0], way)
    return found, costs
