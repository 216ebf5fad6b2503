"""EvoPress on planted cases whose optimum is known by brute force."""

import itertools
import random

import pytest

from backend.search import evopress
from backend.search.base import cost

STEPS = (evopress.Selection(1, 4), evopress.Selection(2, 1))


def run(costs, budget, loss, start=None, seed=0, generations=150, offspring=12):
    start = start or (0,) * len(costs)
    return evopress.evolve(
        costs,
        budget,
        lambda levels, _: loss(levels),
        start=start,
        generations=generations,
        offspring=offspring,
        selections=STEPS,
        seed=seed,
    )


def brute(costs, budget, loss):
    every = itertools.product(*(range(len(row)) for row in costs))
    return min((levels for levels in every if cost(costs, levels) <= budget), key=loss)


def additive(errors):
    return lambda levels: sum(errors[layer][level] for layer, level in enumerate(levels))


def planted(seed, layers=5, count=4):
    draw = random.Random(seed)
    costs = [sorted(draw.sample(range(1, 30), count)) for _ in range(layers)]
    errors = [sorted((draw.random() for _ in range(count)), reverse=True) for _ in range(layers)]
    least = sum(row[0] for row in costs)
    most = sum(row[-1] for row in costs)
    return costs, errors, (least + most) // 2


@pytest.mark.parametrize("seed", range(8))
def test_the_optimum_of_brute_force_is_found(seed):
    costs, errors, budget = planted(seed)
    loss = additive(errors)
    found = run(costs, budget, loss)
    assert cost(costs, found) <= budget
    assert loss(found) == loss(brute(costs, budget, loss))


@pytest.mark.parametrize("seed", range(4))
def test_errors_that_fall_and_rise_again_are_no_obstacle(seed):
    costs, errors, budget = planted(seed)
    draw = random.Random(seed + 100)
    for row in errors:
        draw.shuffle(row)
    loss = additive(errors)
    assert loss(run(costs, budget, loss)) == loss(brute(costs, budget, loss))


def greedy(costs, budget, loss):
    """Raise the layer that gains most for its cost, as long as one fits."""
    levels = [0] * len(costs)
    while True:
        best = None
        for layer, row in enumerate(costs):
            if levels[layer] + 1 == len(row):
                continue
            child = levels.copy()
            child[layer] += 1
            if cost(costs, child) > budget:
                continue
            gain = (loss(levels) - loss(child)) / (row[levels[layer] + 1] - row[levels[layer]])
            if best is None or gain > best[0]:
                best = gain, child
        if best is None:
            return tuple(levels)
        levels = best[1]


def test_a_table_on_which_greedy_fails_is_solved():
    """A cheap gain taken first leaves no room for the dear one that is worth more."""
    costs = [[0, 6], [0, 10], [0, 5]]
    loss = additive([[6.6, 0], [10, 0], [5.2, 0]])
    budget = 10
    assert greedy(costs, budget, loss) == (1, 0, 0)
    assert brute(costs, budget, loss) == (0, 1, 0)
    assert run(costs, budget, loss) == (0, 1, 0)


def test_layers_that_only_pay_together_are_raised_together():
    """Neither additive: two layers help only if both are raised."""
    costs = [[0, 1]] * 6

    def loss(levels):
        return 10 - 5 * (levels[1] and levels[4]) - 0.1 * sum(levels)

    found = run(costs, 2, loss, start=(1, 0, 1, 0, 0, 0))
    assert found == (0, 1, 0, 0, 1, 0) == brute(costs, 2, loss)


def test_the_budget_is_kept_by_everything_that_is_ever_looked_at():
    costs, errors, budget = planted(3, layers=8)
    seen = []

    def loss(levels):
        seen.append(levels)
        return additive(errors)(levels)

    run(costs, budget, loss)
    assert len(seen) > 100
    assert all(cost(costs, levels) <= budget for levels in seen)
    for levels in seen:
        assert all(0 <= level < len(costs[layer]) for layer, level in enumerate(levels))


def test_mutation_keeps_the_budget_from_any_start():
    draw = random.Random(0)
    for seed in range(40):
        costs, _, budget = planted(seed)
        levels = evopress.fill((0,) * len(costs), costs, budget, draw)
        for _ in range(20):
            levels = evopress.mutate(levels, costs, budget, draw)
            assert cost(costs, levels) <= budget
        levels = evopress.fill(levels, costs, budget, draw)
        room = budget - cost(costs, levels)
        steps = [
            row[levels[layer] + 1] - row[levels[layer]]
            for layer, row in enumerate(costs)
            if levels[layer] + 1 < len(row)
        ]
        assert all(step > room for step in steps), "nothing more fits"


def test_the_same_seed_gives_the_same_and_the_loss_never_rises():
    costs, errors, budget = planted(5, layers=10)
    losses = []

    def once(seed):
        losses.clear()
        return evopress.evolve(
            costs,
            budget,
            lambda levels, _: additive(errors)(levels),
            start=(0,) * 10,
            generations=15,
            offspring=6,
            selections=STEPS,
            seed=seed,
            watch=lambda _, loss: losses.append(loss),
        )

    assert once(1) == once(1)
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 15


def test_a_start_over_the_budget_is_refused():
    with pytest.raises(ValueError, match="costs 4, more than 3"):
        run([[1, 4]], 3, lambda levels: 0, start=(1,))


def test_where_nothing_can_be_raised_the_start_comes_back():
    assert run([[3], [4]], 7, lambda levels: 0) == (0, 0)
