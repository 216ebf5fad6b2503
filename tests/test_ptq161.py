"""PTQ1.61: bytes by hand, both descents against brute force, which columns are apart."""

import itertools

import pytest
import torch

from backend import formats
from backend.methods.quantise import ptq161
from backend.methods.quantise.ptq161 import Ptq161
from tests.contract import error, inputs_of, normal, statistics_of


def test_a_fifth_of_the_columns_in_a_wide_matrix_take_the_bits_of_the_paper():
    """By hand: 0.2 * 4 + 0.8 * 1 = 1.6, and a hundredth for mask, ranges and numbers."""
    rows, columns = 4096, 4096
    apart = Ptq161(1.617).apart(rows, columns)
    assert apart == pytest.approx(0.2 * columns, abs=4)
    nbytes = Ptq161(1.617).outline(rows, columns).nbytes
    by_row = apart / 2 + 2 + 1 + (columns - apart) / 8 + 2 * 2
    assert nbytes == pytest.approx(columns / 8 + rows * by_row + 2 * (columns - apart), abs=rows)
    assert 8 * nbytes / (rows * columns) <= 1.617


def test_the_columns_with_the_largest_inputs_are_apart_and_hold_four_bits():
    inputs, weight = normal(256, 64, seed=4), normal(32, 64)
    loud = torch.tensor([3, 20, 41])
    inputs[:, loud] *= 30
    method = Ptq161(2.9)
    held = method.fit(weight, statistics_of(inputs))
    assert isinstance(held, formats.Columns)
    assert held.apart().sum() == method.apart(32, 64) >= 3
    assert bool(held.apart()[loud].all())
    first = int(statistics_of(inputs).order[0])  # the first to be rounded is as it was
    ends = torch.stack([weight[:, held.apart()].amin(1), weight[:, held.apart()].amax(1)])
    step = (ends[1].clamp(min=0) - ends[0].clamp(max=0)) / 15
    change = (held.dense() - weight)[:, first].abs()
    assert torch.all(change <= 1.01 * step)
    assert change.mean() < 0.4 * step.mean()


def test_a_row_of_two_values_is_held_as_it_is():
    """Any matrix (a sign + m) is its own best in signs, whatever the inputs."""
    signs = torch.where(normal(16, 64) > 0, 1.0, -1.0)
    signs[:, 32:] = -signs[:, :32]  # so that the mean of a row is m
    weight = 0.5 * signs + torch.arange(16.0).unsqueeze(1) / 8
    statistics = statistics_of(inputs_of(64))
    held = Ptq161(4.0).fit(weight, statistics)
    whole = error(weight, formats.Dense.pack(torch.zeros_like(weight)), statistics)
    assert error(weight, held, statistics) < 2e-3 * whole


def signs_of(rows=6, columns=12):
    weight, hessian = normal(rows, columns), statistics_of(inputs_of(columns)).damped(0.05)
    points = ptq161._Points(weight, torch.arange(columns) % 4 == 0, torch.arange(columns))
    for place in range(columns):
        points.round(place, weight[:, place])
    return ptq161._Signs(weight, points, hessian, 0)


@pytest.mark.parametrize("part", ["columns", "rows"])
def test_each_step_ends_at_the_foot_of_its_parabola(part):
    """No small move of any number gains more than rounding to 16 bits explains."""
    signs = signs_of()
    before = signs._loss()
    getattr(signs, f"_set_{part}")()
    least = signs._loss()
    assert least < before
    numbers = getattr(signs, part)
    for place in itertools.product(*map(range, numbers.shape)):
        for move in (0.9, 1.1):
            moved = numbers.clone()
            moved[place] *= move
            setattr(signs, part, moved)
            assert signs._loss() >= least - 1e-3 * abs(least)


def test_more_rounds_lose_less():
    weight, statistics = normal(32, 64), statistics_of(inputs_of(64))
    lost = [
        error(weight, Ptq161(2.6, rounds=rounds).fit(weight, statistics), statistics)
        for rounds in (0, 1, 4)
    ]
    assert lost[0] > lost[1] > lost[2]


def test_it_is_multiplied_where_it_lies():
    held = Ptq161(3.0).fit(normal(48, 72), statistics_of(inputs_of(72)))
    assert held.speed == "measured"
    x = normal(3, 72, seed=7)
    expected = x @ held.dense().T
    assert (held.multiply(x) - expected).norm() < 6e-5 * expected.norm()
