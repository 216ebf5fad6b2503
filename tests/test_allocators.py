"""Allocators on planted tables: exact where brute force can tell, within the budget always."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import search
from backend.search.base import Table, cost, even, raised
from backend.search.integer_program import solve
from backend.search.layerwise import Layerwise


def quiet(*_):
    return None


def brute(costs, losses, budget):
    every = itertools.product(*(range(len(row)) for row in costs))
    return min(
        sum(losses[i][level] for i, level in enumerate(levels))
        for levels in every
        if cost(costs, levels) <= budget
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_the_integer_program_finds_what_brute_force_finds(data):
    sites = data.draw(st.integers(1, 5))
    kinds = st.integers(1, 4)
    costs, losses = [], []
    for _ in range(sites):
        count = data.draw(kinds)
        costs.append(data.draw(st.lists(st.integers(0, 20), min_size=count, max_size=count)))
        losses.append(data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))
    least, most = sum(map(min, costs)), sum(map(max, costs))
    budget = data.draw(st.integers(least, most + 3))
    levels = solve(costs, losses, budget)
    assert cost(costs, levels) <= budget
    assert sum(losses[i][level] for i, level in enumerate(levels)) == brute(costs, losses, budget)


def test_a_table_on_which_greedy_fails_is_solved():
    """The best gain for its cost, 6.6 for 6, leaves no room for 10 for 10."""
    costs, losses = [[0, 6], [0, 10], [0, 5]], [[6.6, 0], [10, 0], [5.2, 0]]
    assert solve(costs, losses, 10) == (0, 1, 0)


def test_errors_that_rise_with_a_level_are_no_obstacle():
    """More bytes may hurt: the middle level of the first is worse than its lowest."""
    costs, losses = [[1, 2, 3], [1, 2, 3]], [[5.0, 9.0, 1.0], [5.0, 2.0, 4.0]]
    assert solve(costs, losses, 6) == (2, 1)
    assert solve(costs, losses, 4) == (2, 0)
    assert solve(costs, losses, 3) == (0, 1)


def test_many_equal_matrices_are_solved_as_one_would_by_hand():
    """40 alike, each 3 bytes for a gain of 3 or 2 for 1: thirteen raised fully, one by half."""
    costs, losses = [[0, 2, 3]] * 40, [[3.0, 2.0, 0.0]] * 40
    levels = solve(costs, losses, 41)
    assert sorted(levels) == [0] * 26 + [1] + [2] * 13


def test_turned_round_it_finds_the_cheapest_within_a_loss():
    costs, losses = [[1, 4], [1, 5]], [[3.0, 1.0], [4.0, 1.0]]
    assert solve(losses, costs, 5.0) == (1, 0)
    assert solve(losses, costs, 4.5) == (0, 1)
    assert solve(losses, costs, 2.0) == (1, 1)


def test_what_no_levels_can_keep_is_refused():
    with pytest.raises(ValueError, match="cheapest levels cost 3, more than 2"):
        solve([[1, 2], [2, 3]], [[1, 0], [1, 0]], 2)


class Planted:
    """A problem whose answers are written down."""

    def __init__(self, costs, losses, blocks, scores):
        numbers = tuple(8 for _ in costs)
        names = tuple(str(index) for index in range(len(costs)))
        self.table = Table(names, blocks, numbers, costs, losses)
        self.scores, self.known = scores, losses

    def loss(self, levels, tokens):
        return sum(self.known[index][level] for index, level in enumerate(levels))

    def losses(self, progress):
        return self.known

    def importance(self, score):
        return self.scores


def planted(seed):
    draw = random.Random(seed)
    costs = tuple(tuple(sorted(draw.sample(range(2, 24), 5))) for _ in range(6))
    losses = tuple(tuple(sorted((draw.random() for _ in range(5)), reverse=True)) for _ in costs)
    return Planted(costs, losses, (0, 0, 1, 1, 2, 2), [draw.random() for _ in range(3)])


@pytest.mark.parametrize("key", search.catalogue())
@pytest.mark.parametrize("seed", range(6))
def test_every_allocator_keeps_the_budget_and_leaves_no_room_for_more(key, seed):
    problem = planted(seed)
    costs = problem.table.costs
    budget = (sum(row[0] for row in costs) + sum(row[-1] for row in costs)) // 2
    levels = search.find(key)().divide(problem, budget, quiet)
    assert cost(costs, levels) <= budget
    assert problem.loss(levels, 1) <= problem.loss(even(costs, budget), 1) or key == "layerwise"
    assert raised(levels, costs, budget, range(6)) == levels


def test_the_layers_that_matter_get_the_upper_level():
    """Four alike at 2, 4 or 8 bytes; 20 bytes are a mean of 5, and a third either way 4 and 8."""
    costs = ((2, 4, 8),) * 4
    problem = Planted(costs, ((3.0, 2.0, 1.0),) * 4, (0, 1, 2, 3), [0.1, 0.9, 0.5, 0.2])
    levels = Layerwise(spread=0.5).divide(problem, 20, quiet)
    assert levels == (0, 2, 2, 0)


def test_a_table_comes_back_from_its_text():
    table = planted(0).table
    assert Table.from_json(table.to_json()) == table
    assert table.budget(4) == 6 * 8 * 4 // 8
