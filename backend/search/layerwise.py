"""Layer-wise quantisation: the layers that matter get more, the others less."""

from __future__ import annotations

from dataclasses import dataclass

from backend.search.base import Allocator, Levels, Problem, Progress, cost, raised
from backend.settings import setting


@dataclass(frozen=True)
class Layerwise(Allocator):
    """Rank the layers by how much they matter and hold the first of them in more bits.

    Two levels stand around the mean budget. Layers are ordered by importance, and as many as
    the budget allows get the upper level, the rest the lower one; what is left over raises the
    next in order. Importance is how far a layer turns what flows through it, or the share of
    its weights that stand out from the rest.
    """

    paper = "arXiv 2406.17415"
    claim = "Performance stays near the original until 25 to 50 % of layers go to lower bits."
    limits = "All matrices of a layer move together, as in the paper."

    score: str = setting(
        "input",
        "Importance: how far a layer's output is from its input, or its share of large weights.",
        choices=("input", "outliers"),
    )
    spread: float = setting(
        0.3333, "How far the two levels stand from the mean, as a share of it.", low=0.05, high=0.75
    )

    def divide(self, problem: Problem, budget: int, progress: Progress) -> Levels:
        """The upper level for the layers that matter, the lower for the rest."""
        progress("layerwise", 0, 1)
        table = problem.table
        mean = budget / sum(table.numbers)
        lower, upper = (
            [
                _nearest(row, mean * share * numbers)
                for row, numbers in zip(table.costs, table.numbers, strict=True)
            ]
            for share in (1 - self.spread, 1 + self.spread)
        )
        scores = problem.importance(self.score)
        ranked = sorted(range(len(scores)), key=lambda block: -scores[block])
        members = {block: [i for i, b in enumerate(table.blocks) if b == block] for block in ranked}
        levels = lower if cost(table.costs, lower) <= budget else [0] * len(lower)
        for block in ranked:
            trial = list(levels)
            for index in members[block]:
                trial[index] = max(upper[index], trial[index])
            if cost(table.costs, trial) > budget:
                break
            levels = trial
        order = [index for block in ranked for index in members[block]]
        progress("layerwise", 1, 1)
        return raised(levels, table.costs, budget, order)


def _nearest(row: tuple[int, ...], wanted: float) -> int:
    """The level whose bytes are nearest to those wanted."""
    return min(range(len(row)), key=lambda level: abs(row[level] - wanted))
