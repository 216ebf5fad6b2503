"""Integer program: the best levels there are, if what they cost simply adds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from backend.search.base import Allocator, Levels, Problem, Progress

ROUNDING = 1e-12
MOST = 200_000  # partial solutions


@dataclass(frozen=True)
class IntegerProgram(Allocator):
    """Choose every matrix's level at once, by what each level alone costs the whole model.

    For every matrix a table tells how far each level moves its outputs, and a few passes of the
    model with one matrix changed tell how many nats that is worth. The levels with the least
    sum within the budget are then found exactly. The table serves every later budget.
    """

    paper = "arXiv 2411.17525"
    claim = "Errors of layers add up, so the best mix of widths is a knapsack solved exactly."
    limits = "Errors that two matrices make together are not seen."

    def divide(self, problem: Problem, budget: int, progress: Progress) -> Levels:
        """The levels whose losses sum to the least within a budget."""
        losses = problem.losses(progress)
        return solve(problem.table.costs, losses, budget)


def solve(
    costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], budget: float
) -> Levels:
    """The levels with the least sum of losses whose costs sum to at most `budget`.

    With costs and losses exchanged it finds the cheapest levels within a sum of losses.

    Raises:
        ValueError: even the cheapest levels cost more.
    """
    kept = [_undominated(row, lost) for row, lost in zip(costs, losses, strict=True)]
    choices = [
        _Choices(np.array(places), np.array(row, float)[places], np.array(lost, float)[places])
        for places, row, lost in zip(kept, costs, losses, strict=True)
    ]
    least = sum(one.costs[0] for one in choices)
    if least > budget:
        raise ValueError(f"The cheapest levels cost {least:g}, more than {budget:g}.")
    picks = _knapsack(choices, budget)
    return tuple(int(one.places[pick]) for one, pick in zip(choices, picks, strict=True))


@dataclass(frozen=True)
class _Choices:
    """The levels of one matrix that no other of its levels beats: costs rise, losses fall."""

    places: np.ndarray
    costs: np.ndarray
    losses: np.ndarray


def _undominated(row: Sequence[float], lost: Sequence[float]) -> list[int]:
    """Places from the cheapest to the dearest, each losing less than all that cost no more."""
    best, kept = math.inf, []
    for place in sorted(range(len(row)), key=lambda one: (row[one], lost[one])):
        if lost[place] < best:
            best = lost[place]
            kept.append(place)
    return kept


def _knapsack(choices: list[_Choices], budget: float) -> list[int]:
    """A multiple-choice knapsack solved exactly (Pisinger, 1995): relax, fix, enumerate the rest.

    A price on each unit of cost makes the choices independent. What a choice loses against the
    best at that price is a penalty; a solution's loss is the bound plus its penalties plus the
    price of what it leaves unspent. So whatever is penalised by more than the gap between the
    bound and the best solution known is out, and few choices are left to be enumerated: those
    that matter most first, partial solutions that others beat being dropped. Where more than
    `MOST` stay level with each other, only the least penalised are followed.
    """
    price = _price(choices, budget)
    base = [_cheapest_best(one, price) for one in choices]
    spent = sum(one.costs[pick] for one, pick in zip(choices, base, strict=True))
    penalties = [
        one.losses - one.losses[pick] + price * (one.costs - one.costs[pick])
        for one, pick in zip(choices, base, strict=True)
    ]
    moves = [one.costs - one.costs[pick] for one, pick in zip(choices, base, strict=True)]
    search = _Enumeration(budget - spent, price)
    order = sorted(
        range(len(choices)),
        key=lambda index: float(np.delete(penalties[index], base[index]).min(initial=math.inf)),
    )
    for index in order:
        search.extend(index, moves[index], penalties[index], base[index])
    return [search.picked.get(index, pick) for index, pick in enumerate(base)]


def _price(choices: list[_Choices], budget: float) -> float:
    """Loss for a unit of cost at which the best choices just fit: the relaxation's multiplier."""
    steps = [step for one in choices for step in _hull_steps(one)]
    left = budget - sum(one.costs[0] for one in choices)
    for slope, length in sorted(steps, reverse=True):
        if length > left:
            return slope
        left -= length
    return 0.0


def _hull_steps(one: _Choices) -> list[tuple[float, float]]:
    """Gain for a unit of cost, and cost, of each step along the lower convex hull."""
    hull = [0]
    for place in range(1, len(one.costs)):
        while len(hull) > 1 and _slope(one, hull[-1], place) >= _slope(one, hull[-2], hull[-1]):
            hull.pop()
        hull.append(place)
    return [(_slope(one, a, b), float(one.costs[b] - one.costs[a])) for a, b in pairwise(hull)]


def _slope(one: _Choices, first: int, second: int) -> float:
    return float((one.losses[first] - one.losses[second]) / (one.costs[second] - one.costs[first]))


def _cheapest_best(one: _Choices, price: float) -> int:
    """The cheapest of the choices that are best at a price; those of the relaxation fit."""
    worth = one.losses + price * one.costs
    return int(np.argmax(worth <= worth.min() + ROUNDING * np.abs(worth).max()))


class _Enumeration:
    """Partial solutions as changes to a base: what they cost more, and by how much penalised."""

    def __init__(self, spare: float, price: float) -> None:
        self.spare, self.price = spare, price
        self.moves, self.penalties = np.zeros(1), np.zeros(1)
        self.history: list[tuple[int, np.ndarray, np.ndarray]] = []
        self.best = spare * price  # above the bound: the base, with what it leaves unspent
        self.picked: dict[int, int] = {}

    def extend(self, index: int, moves: np.ndarray, penalties: np.ndarray, pick: int) -> None:
        """Take up one more matrix, whose choice in the base is `pick`."""
        alive = np.flatnonzero(penalties < self.best)
        if len(alive) == 1 and alive[0] == pick:
            return
        cost = (self.moves[:, None] + moves[alive]).ravel()
        lost = (self.penalties[:, None] + penalties[alive]).ravel()
        keep = self._unbeaten(cost, lost)
        parents, chosen = keep // len(alive), alive[keep % len(alive)]
        self.moves, self.penalties = cost[keep], lost[keep]
        self.history.append((index, parents, chosen))
        fits = np.flatnonzero(self.moves <= self.spare)
        totals = self.penalties[fits] + self.price * (self.spare - self.moves[fits])
        if len(fits) and totals.min() < self.best:
            self.best = float(totals.min())
            self._trace(int(fits[totals.argmin()]))

    def _unbeaten(self, cost: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """Those below the gap that none beats in both cost and loss, cheapest first."""
        possible = np.flatnonzero(lost < self.best)
        loss = lost[possible] - self.price * cost[possible]
        order = np.lexsort((loss, cost[possible]))
        loss = loss[order]
        lowest = np.minimum.accumulate(np.concatenate([[math.inf], loss[:-1]]))
        kept = possible[order[loss < lowest]]
        if len(kept) > MOST:
            kept = np.sort(kept[np.argpartition(lost[kept], MOST)[:MOST]])
        return kept

    def _trace(self, state: int) -> None:
        self.picked = {}
        for index, parents, chosen in reversed(self.history):
            self.picked[index] = int(chosen[state])
            state = int(parents[state])
