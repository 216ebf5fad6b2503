"""GQSA: the choice of groups and both descents against brute force, bytes by hand."""

import itertools

import pytest
import torch

from backend import formats
from backend.methods.quantise import _descent, gqsa
from backend.methods.quantise.gqsa import Gqsa
from tests.contract import error, inputs_of, normal, statistics_of


def solved(weight, mask, hessian):
    """The kept weights of each row that lose least, row by row by their normal equations."""
    found = torch.zeros_like(weight)
    for row, kept in enumerate(mask):
        part = hessian[kept][:, kept].double()
        found[row, kept] = torch.linalg.solve(part, (weight[row] @ hessian)[kept].double()).float()
    return found


def test_half_of_the_groups_take_the_bits_of_the_paper():
    """By hand: 16 codes of 4 bits, a scale of 16 and a zero point of 4 are 84 bits a group."""
    rows, columns = 64, 256
    bits = 0.5 * (4 + 20 / 16) + 1 / 16
    method = Gqsa(bits)
    assert method.kept(rows, columns) == rows * columns // 32
    held = method.fit(normal(rows, columns), statistics_of(inputs_of(columns)))
    assert held.bits == pytest.approx(bits)
    assert held.parts() == {
        "mask": rows * 2,
        "values/codes/plane4": 512 * 8,
        "values/scales/values": 512 * 2,
        "values/zero_points/plane4": 512 // 2,
    }
    assert int((held.dense() != 0).view(rows, -1, 16).any(-1).sum()) <= 512


def test_the_groups_that_stay_are_those_whose_loss_would_cost_most():
    """With one group left out, the cost is what the best of the rest leaves."""
    weight, hessian = normal(1, 6), statistics_of(inputs_of(6)).damped(0.1)
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian.double()), upper=True).float()
    assert torch.allclose(factor.T @ factor @ hessian, torch.eye(6), atol=1e-3)
    left_out = []
    for place in range(6):
        mask = torch.ones(1, 6, dtype=torch.bool)
        mask[0, place] = False
        best = solved(weight, mask, hessian)
        left_out.append(float(_descent.loss(weight, best, hessian)))
    order = sorted(range(6), key=lambda place: -left_out[place])
    for kept in range(1, 6):
        mask = gqsa.chosen(weight, factor, 1, kept)
        assert mask[0].nonzero().flatten().tolist() == sorted(order[:kept])


def test_a_group_costs_what_its_weights_cost_together():
    weight = torch.tensor([[3.0, 0.0, 2.0, 2.5], [1.0, 1.0, 0.0, 3.9]])  # 9, 10.25, 2, 15.21
    for kept, expected in enumerate([[3], [1, 3], [0, 1, 3]], start=1):
        mask = gqsa.chosen(weight, torch.eye(4), 2, kept)
        assert mask.flatten().nonzero().flatten().tolist() == expected


def test_descent_finds_what_the_normal_equations_find():
    weight, statistics = normal(5, 24), statistics_of(inputs_of(24))
    hessian, mask = statistics.damped(0.01), normal(5, 24, seed=3) > 0
    found = _descent.descend(
        weight,
        weight * mask,
        hessian,
        lambda free: free,
        lambda rows: rows * mask,
        weights=mask * hessian.diagonal(),
        steps=60,
    )
    best = solved(weight, mask, hessian)
    assert torch.equal(found[~mask], torch.zeros(int((~mask).sum())))
    lost = [_descent.loss(weight, one, hessian) for one in (found, best, weight * mask)]
    assert torch.all(lost[0] <= 1.001 * lost[1] + 1e-6)
    assert torch.all(lost[1] < 0.9 * lost[2])


@pytest.mark.parametrize("columns", [64, 40])
def test_each_step_of_the_second_stage_pays(columns):
    weight, statistics = normal(32, columns), statistics_of(inputs_of(columns))
    lost = [
        error(weight, Gqsa(3.0, steps=steps).fit(weight, statistics), statistics)
        for steps in (0, 2, 12)
    ]
    assert all(after < before for before, after in itertools.pairwise(lost))


def test_all_groups_within_the_budget_leave_none_out():
    weight = normal(16, 64)
    held = Gqsa(6.7).fit(weight, statistics_of(inputs_of(64)))
    assert bool(held.kept().all())
    assert held.bits == pytest.approx(4 + 20 / 16 + 8 / 64)  # a mask ends in whole bytes
    assert (held.dense() - weight).square().mean() < 0.02 * weight.square().mean()


def test_it_is_multiplied_where_it_lies():
    held = Gqsa(3.0).fit(normal(48, 72), statistics_of(inputs_of(72)))
    assert isinstance(held, formats.GroupSparse)
    assert held.speed == "measured"
    x = normal(3, 72, seed=7)
    expected = x @ held.dense().T
    assert (held.multiply(x) - expected).norm() < 1e-5 * expected.norm()
