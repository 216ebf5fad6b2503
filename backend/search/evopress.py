"""EvoPress: evolve which layer gets which level, judged by the model itself."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend.search.base import Allocator, Levels, Problem, Progress, cost, even
from backend.settings import setting

FEW, MANY = 512, 4096  # calibration tokens of the two steps of selection
LEAN = 0.25  # share of children that may leave some of the budget


@dataclass(frozen=True)
class Evopress(Allocator):
    """Evolve which matrix gets which level, judged by what the whole model then says.

    A child raises some matrices by one level and lowers others until the budget holds again.
    Selection goes in steps, each on more text with fewer survivors, by the KL divergence from
    the dense model. Nothing is assumed of the errors, which need neither add nor fall with
    every level.
    """

    paper = "arXiv 2410.14649"
    claim = "The best non-uniform division for dropping, sparsity and bits alike."

    generations: int = setting(20, "Rounds of children.", low=1, high=1000)
    offspring: int = setting(12, "Children a round.", low=2, high=256)

    def divide(self, problem: Problem, budget: int, progress: Progress) -> Levels:
        """The fittest levels after all generations, from the same place on every ladder."""
        costs = problem.table.costs
        return evolve(
            costs,
            budget,
            problem.loss,
            start=even(costs, budget),
            generations=self.generations,
            offspring=self.offspring,
            selections=(Selection(FEW, 3), Selection(MANY, 1)),
            watch=lambda done, _: progress("evopress", done + 1, self.generations),
        )


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
