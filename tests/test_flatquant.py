"""FlatQuant: what is turned stays the same product, and rounding changes it less than without."""

import pytest
import torch

from backend import formats
from backend.calibrate import statistics as gathered
from backend.calibrate.statistics import InputStatistics
from backend.formats.rounded_inputs import turn
from backend.methods.base import Needs
from backend.methods.quantise import flatquant
from backend.methods.quantise.flatquant import Flatquant
from tests.contract import inputs_of, statistics_of
from tests.looking import normal


def test_two_matrices_are_as_small_as_their_product_is_wide():
    """By hand: 4096 is 64 times 64, which is 2 * 64^2 numbers of 16 bits, 0.0078 bits a weight."""
    assert flatquant.sides_of(4096, 4096) == (64, 64)
    assert flatquant.beside(4096, 4096) == 4 + 2 * 2 * 64**2
    assert flatquant.sides_of(256, 128) == (8, 16)
    assert flatquant.sides_of(64, 128) == (8, 8), "320 numbers would be 0.63 bits a weight"
    assert flatquant.sides_of(3, 4) is None


def test_a_turned_weight_and_turned_inputs_have_the_same_product():
    turns = normal(8, 8), normal(16, 16, seed=1)
    weight, inputs = normal(10, 256, seed=2), normal(7, 256, seed=3)
    found = turn(inputs, *turns) @ turn(weight, *flatquant.inverses(turns)).T
    assert torch.allclose(found, inputs @ weight.T, rtol=1e-3, atol=1e-2)


def with_outliers(columns=128, tokens=512):
    """Inputs of which two columns are twenty times as loud as the others."""
    loud = torch.ones(columns)
    loud[[5, 70]] = 20.0
    return normal(tokens, columns, seed=7) * loud


def lost(held, weight, inputs):
    wanted = inputs @ weight.T
    return float((held.multiply(inputs) - wanted).square().sum() / wanted.square().sum())


def test_inputs_with_outliers_lose_far_less_once_turned_and_less_still_once_learned():
    weight, inputs = normal(256, 128), with_outliers()
    weight[:, [5, 70]] /= 20
    seen = statistics_of(inputs)
    plain = formats.RoundedInputs.pack(formats.Dense.pack(weight), bits=4)
    learned = Flatquant(4.5).fit(weight, seen)
    start = Flatquant(4.5, steps=0).fit(weight, seen)
    assert lost(start, weight, inputs) < 0.5 * lost(plain, weight, inputs)
    assert lost(learned, weight, inputs) < 0.9 * lost(start, weight, inputs)
    fresh = with_outliers(tokens=600)[512:]
    assert lost(learned, weight, fresh) < 0.9 * lost(start, weight, fresh)


def test_more_bits_of_inputs_lose_less():
    weight, inputs = normal(128, 128), inputs_of(128)
    seen = statistics_of(inputs)
    losses = [
        lost(Flatquant(8.0, inputs=bits).fit(weight, seen), weight, inputs) for bits in (4, 8)
    ]
    assert losses[1] < 0.1 * losses[0]
    whole = Flatquant(8.0, inputs=16).fit(weight, seen)
    assert torch.allclose(whole.multiply(inputs), inputs @ whole.dense().T, rtol=1e-2, atol=1e-1)


def test_a_sample_is_spread_evenly_over_all_inputs_however_they_come():
    """Inputs that are their own place: of 2,000 every fourth is kept, of which 500 fit."""
    places = torch.arange(2000.0).unsqueeze(1)
    for sizes in ([2000], [7] * 285 + [5], [999, 1, 1000]):
        one = InputStatistics(1, Needs.SAMPLES)
        for part in places.split(sizes):
            one.add(part)
        assert one.samples.flatten().tolist() == list(range(0, 2000, 4))
    assert gathered.MOST_SAMPLES == 512


def test_where_none_were_kept_inputs_are_drawn_with_the_same_second_moments():
    inputs = inputs_of(16, tokens=4000)
    seen = statistics_of(inputs, Needs.HESSIAN)
    drawn = seen.sampled()
    found = drawn.T @ drawn / len(drawn)
    assert (found - seen.hessian).norm() < 0.3 * seen.hessian.norm()
    assert torch.equal(drawn, seen.sampled())
    assert torch.equal(statistics_of(inputs).sampled(), inputs[:: 4000 // 500])


def test_the_budget_counts_the_matrices():
    """Codes of 4 bits, a scale and an offset a row, 64 + 256 numbers, and the reach."""
    held = Flatquant(4.41).fit(normal(256, 128), statistics_of(inputs_of(128)))
    assert held.nbytes == 256 * 64 + 256 * 4 + 2 * 320 + 4
    assert held.bits == pytest.approx(4.25 + 8 * 644 / (256 * 128))
