"""NUPES: grids that powers bend, against hand-made ones and against even grids."""

import pytest
import torch

from backend.calibrate.statistics import InputStatistics
from backend.methods.base import Needs
from backend.methods.quantise import _tables, nupes
from backend.methods.quantise.nupes import Nupes
from backend.methods.quantise.rtn import Rtn
from tests.contract import normal

NOTHING = InputStatistics(256, Needs.NOTHING)


def test_grids_are_even_after_the_power():
    """By hand: two bits at exponent 1/2 are 1 and (1/3)^2 of both signs; at 1 they are even."""
    assert nupes.grid(0.5, 2).tolist() == pytest.approx([-1, -1 / 9, 1 / 9, 1])
    assert nupes.grid(1.0, 2).tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1])
    for exponent in nupes.EXPONENTS:
        found = nupes.grid(exponent, 4)
        raised = found.sign() * found.abs().pow(exponent)
        assert torch.allclose(raised.diff(), torch.full((15,), 2 / 15), atol=1e-5)


@pytest.mark.parametrize("exponent", [0.35, 0.6, 1.0])
def test_weights_made_by_a_power_have_it_found_and_are_held_exactly(exponent):
    grid = nupes.grid(exponent, 4)
    places = torch.randint(16, (32, 256), generator=torch.Generator().manual_seed(0))
    places[:, ::128] = 15  # the largest of each group
    weight = grid.bfloat16().float()[places]
    held = Nupes(4.25).fit(weight, NOTHING)
    assert torch.equal(held.table, grid.bfloat16())
    assert torch.equal(held.dense(), weight)
    assert held.nbytes == 32 * 256 // 2 + 2 * 32 * 2 + 2 * 16


def test_of_a_normal_curve_no_exponent_loses_less_than_the_one_that_is_chosen():
    weight = normal(16, 256)
    own = _tables.coded(weight, 128, 3, nupes.bent, torch.ones_like(weight))
    losses = []
    for exponent in nupes.EXPONENTS:
        grid = nupes.grid(exponent, 3)
        other = _tables.coded(weight, 128, 3, lambda *_, one=grid: one, torch.ones_like(weight))
        losses.append(float((other.dense() - weight).square().mean()))
    found = float((own.dense() - weight).square().mean())
    even = losses[nupes.EXPONENTS.index(1.0)]
    assert found <= 1.01 * min(losses)
    assert found < 0.97 * even


def test_bent_grids_change_weights_less_than_even_ones_of_as_many_bits():
    weight = normal(64, 256)
    errors = [
        float((method(3.2).fit(weight, NOTHING).dense() - weight).square().mean())
        for method in (Nupes, Rtn)
    ]
    assert errors[0] < 0.9 * errors[1]


def test_a_width_in_between_gives_the_rows_that_change_most_the_wider_codes():
    weight = normal(64, 256)
    weight[::4] *= 5
    held = Nupes(3.5).fit(weight, NOTHING)
    assert (held.fine.code_bits, held.coarse.code_bits) == (4, 3)
    assert held.fine.rows >= 16
    fine = held.fine.dense()
    rows = held.dense()
    assert all(bool((rows[row] == fine).all(1).any()) for row in range(0, 64, 4))
