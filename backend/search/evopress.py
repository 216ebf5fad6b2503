"""EvoPress (arXiv 2410.14649): evolve which layer gets which level under a fixed budget.

Pure search over integers: levels in, levels out. A child raises some layers by one level and
lowers others until the budget holds again. Selection goes in steps, each on more data with
fewer survivors. Nothing is assumed of the errors, which need be neither additive nor monotone.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Levels = tuple[int, ...]

LEAN = 0.25  # share of children that may leave some of the budget


@dataclass(frozen=True)
class Selection:
    """One step of selection: how much data to look at, how many to keep."""

    tokens: int
    survivors: int


def evolve(
    costs: Sequence[Sequence[int]],
    budget: int,
    fitness: Callable[[Levels, int], float],
    *,
    start: Levels,
    generations: int,
    offspring: int,
    selections: Sequence[Selection],
    seed: int = 0,
    watch: Callable[[int, float], None] | None = None,
) -> Levels:
    """The best levels found.

    Args:
        costs: costs[layer][level], rising with the level.
        budget: most that the costs of all layers may sum to.
        fitness: loss of levels on that many tokens; lower is better.
        start: levels within the budget.
        generations: rounds of children.
        offspring: children a round.
        selections: steps of a round; the last keeps one.
        seed: of the mutations.
        watch: called after each round with its number and the parent's loss.

    Raises:
        ValueError: the start is over the budget.
    """
    if cost(costs, start) > budget:
        raise ValueError(f"The start costs {cost(costs, start)}, more than {budget}.")
    draw = random.Random(seed)
    fitness = functools.cache(fitness)
    parent = start
    final = selections[-1].tokens
    loss = fitness(parent, final)
    for generation in range(generations):
        children = {mutate(parent, costs, budget, draw) for _ in range(offspring)} - {parent}
        pool = sorted(children)
        for step in selections:
            if step is selections[-1]:
                pool = [*pool, parent]
            pool = sorted(pool, key=lambda levels: fitness(levels, step.tokens))
            pool = pool[: step.survivors]
        if pool and pool[0] != parent:
            parent = pool[0]
            loss = fitness(parent, final)
        if watch is not None:
            watch(generation, loss)
    return parent


def cost(costs: Sequence[Sequence[int]], levels: Levels) -> int:
    """What levels cost in all."""
    return sum(costs[layer][level] for layer, level in enumerate(levels))


def mutate(
    levels: Levels, costs: Sequence[Sequence[int]], budget: int, draw: random.Random
) -> Levels:
    """Raise up to three layers by a level, lower others until the budget holds, fill the rest.

    Now and then no layer is raised but one lowered, or the rest is left as it is: where errors
    do not fall with every level, the best may leave room.
    """
    child = list(levels)
    spent = cost(costs, levels)

    def shift(layer: int, step: int) -> int:
        changed = costs[layer][child[layer] + step] - costs[layer][child[layer]]
        child[layer] += step
        return changed

    raised = set()
    lean = draw.random() < LEAN
    if lean:
        able = [layer for layer in range(len(child)) if child[layer]]
        if able:
            spent += shift(draw.choice(able), -1)
    for _ in range(min(draw.randint(1 - lean, 3), draw.randint(1, 3))):
        able = [layer for layer in range(len(child)) if child[layer] + 1 < len(costs[layer])]
        if able:
            layer = draw.choice(able)
            raised.add(layer)
            spent += shift(layer, 1)
    while spent > budget:
        able = [layer for layer in range(len(child)) if child[layer] and layer not in raised]
        able = able or [layer for layer in range(len(child)) if child[layer]]
        spent += shift(draw.choice(able), -1)
    return tuple(child) if lean else fill(tuple(child), costs, budget, draw)


def fill(
    levels: Levels, costs: Sequence[Sequence[int]], budget: int, draw: random.Random
) -> Levels:
    """Raise layers, picked at random, while that stays within the budget."""
    child = list(levels)
    spent = cost(costs, levels)
    while True:
        able = [
            layer
            for layer in range(len(child))
            if child[layer] + 1 < len(costs[layer])
            and spent + costs[layer][child[layer] + 1] - costs[layer][child[layer]] <= budget
        ]
        if not able:
            return tuple(child)
        layer = draw.choice(able)
        spent += costs[layer][child[layer] + 1] - costs[layer][child[layer]]
        child[layer] += 1
