"""What the long tests make of what they saw: slopes and shares; only the standard library."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much the second number grows for each unit of the first, by least squares."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    found, _ = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    return found


def share(values: Sequence[float], part: float) -> float:
    """The value that such a part of all does not exceed; the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(part * len(ordered)) - 1))]
