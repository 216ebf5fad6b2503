"""Magnitude pruning at once and gradually: the cubic schedule and training by hand."""

import pytest
import torch

from backend.methods.base import Needs
from backend.methods.prune import magnitude
from backend.methods.prune.magnitude import Magnitude
from tests.contract import error, inputs_of, normal, statistics_of


def test_shares_follow_the_cubic_of_the_paper():
    """s_t = s_f (1 - (1 - t / n)^3): of 16 weights in 16, 8 stay at 9 bits; 4 steps."""
    method, shape = Magnitude(9.0, steps=4), (64, 64)
    kept = [method._at(step, shape).kept(*shape) / 4096 for step in range(1, 5)]
    expected = [1 - 0.5 * (1 - (1 - step / 4) ** 3) for step in range(1, 5)]
    assert kept == pytest.approx(expected, abs=1e-3)


def test_training_ends_at_the_least_squares_answer():
    """Kept weights alone against the outputs: solved row by row."""
    weight, statistics = normal(6, 12), statistics_of(inputs_of(12))
    hessian = torch.eye(12) + 0.3 * statistics.hessian / statistics.hessian.diagonal().mean()
    mask = normal(6, 12, seed=4) > 0
    found = weight * mask
    for _ in range(20):
        found = magnitude._train(weight, found, mask, hessian)
    for row in range(6):
        kept = mask[row]
        inner, cross = hessian[kept][:, kept], hessian[kept]
        best = torch.linalg.solve(inner, cross @ weight[row])
        assert torch.allclose(found[row, kept], best, atol=1e-3)
        assert torch.all(found[row, ~kept] == 0)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4:8"])
def test_steps_with_training_keep_the_budget_and_lose_less(pattern):
    weight, statistics = normal(32, 64), statistics_of(inputs_of(64))
    errors = []
    for steps in (1, 4, 12):
        held = Magnitude(9.0, pattern=pattern, steps=steps).fit(weight, statistics)
        assert held.bits <= 9.0
        errors.append(error(weight, held, statistics))
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] <= 1.05 * errors[1]


def test_data_is_asked_for_only_where_weights_are_trained():
    assert Magnitude().wants() is Needs.NOTHING
    assert Magnitude(steps=2).wants() is Needs.HESSIAN
