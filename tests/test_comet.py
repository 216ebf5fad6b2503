"""COMET: outliers lie together in blocks of eight bits, and all else is four."""

import pytest
import torch

from backend.methods.quantise.comet import Comet
from tests.contract import statistics_of
from tests.looking import normal
from tests.test_flatquant import lost


def loud_channels():
    """Every sixteenth of 128 inputs is thirty times as loud as the others."""
    loud = torch.ones(128)
    loud[::16] = 30.0
    return normal(512, 128, seed=7) * loud


def test_the_channels_with_the_largest_inputs_come_first_and_are_wide():
    weight, inputs = normal(64, 128), loud_channels()
    held = Comet(4.75, wide=0.1, block=16).fit(weight, statistics_of(inputs))
    assert sorted(held.order[:8].tolist()) == list(range(0, 128, 16))
    assert held.wide == 16, "a tenth of 8 blocks"
    assert held._tops().tolist() == [127.0] + 7 * [7.0]
    error = (held.seen(inputs) - inputs[:, held.order.long()]).abs()
    peaks = inputs[:, held.order.long()].abs().unflatten(1, (8, 16)).amax(-1)
    assert (error.unflatten(1, (8, 16)).amax(-1)[:, 0] <= 0.6 * peaks[:, 0] * held.reach).all()


def test_in_an_order_of_their_own_outliers_no_longer_drown_their_neighbours():
    """Held in the order in which they come, every block of 16 has one outlier and steps as wide."""
    weight, inputs = normal(64, 128), loud_channels()
    weight[:, ::16] /= 30
    held = Comet(8.0, wide=0.1, block=16).fit(weight, statistics_of(inputs))
    mixed = inputs.unflatten(1, (8, 16))
    step = mixed.abs().amax(-1, keepdim=True) / 7
    plain = ((mixed / step).round() * step).flatten(1)
    wanted = inputs @ weight.T
    drowned = float(((plain @ weight.T) - wanted).square().sum() / wanted.square().sum())
    assert lost(held, weight, inputs) < 0.05 * drowned


def test_more_wide_blocks_lose_less():
    weight, inputs = normal(64, 128), loud_channels()
    seen = statistics_of(inputs)
    losses = [lost(Comet(9.5, wide=one).fit(weight, seen), weight, inputs) for one in (0, 0.5, 1)]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 1e-3


def test_the_budget_counts_the_order():
    """Codes of 4 bits, a scale and an offset a row, places of 16 bits, and the reach."""
    held = Comet(4.38).fit(normal(128, 128), statistics_of(loud_channels()))
    assert held.nbytes == 128 * 64 + 128 * 4 + 2 * 128 + 4
    assert held.bits == pytest.approx(4.25 + 8 * 260 / 128**2)
