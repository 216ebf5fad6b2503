"""FineQuant: groups as small as the weights ask for, by hand."""

import math

import pytest
import torch

from backend.calibrate.statistics import InputStatistics
from backend.methods.base import Needs
from backend.methods.quantise.finequant import Finequant
from backend.methods.quantise.rtn import Rtn
from tests.contract import normal

NOTHING = InputStatistics(1024, Needs.NOTHING)


def test_weights_of_one_size_keep_one_group_a_row():
    """Evenly spread values: halving a row narrows nothing and its scales would cost bits."""
    weight = torch.linspace(-1, 1, 16).repeat(8, 64)
    assert Finequant(4.0).group_size(weight) == 1024


def test_an_outlier_in_each_row_asks_for_the_smallest_groups():
    """Ranges of 1 with one group of 100: halving n groups to 2 n divides the mean square by two,
    half a bit, and takes 32 / size bits; that pays down to groups of 64 and no further."""
    weight = torch.tensor([-0.5, 0.5]).repeat(4, 512)
    weight[:, 0] = 99.5
    for size in (1024, 512, 256, 128):
        assert 0.5 * math.log2(2) > 32 / (size / 2) - 32 / size
    assert 0.5 * math.log2(2) == pytest.approx(32 / 32 - 32 / 64)
    assert Finequant(4.0).group_size(weight) == 64


def test_a_margin_asks_for_more_before_it_halves():
    weight = torch.tensor([-0.5, 0.5]).repeat(4, 512)
    weight[:, 0] = 99.5
    assert Finequant(4.0, margin=0.3).group_size(weight) == 128
    assert Finequant(4.0, margin=1.0).group_size(weight) == 1024


def test_what_it_holds_is_rounding_to_nearest_at_the_size_that_it_chose():
    weight = normal(16, 1024)
    weight[:, 3] *= 60
    size = Finequant(4.0).group_size(weight)
    assert size in (64, 128)
    held = Finequant(4.0).fit(weight, NOTHING)
    expected = Rtn(4.0, group_size=size).fit(weight, NOTHING)
    assert held.header() == expected.header()
    assert torch.equal(held.dense(), expected.dense())
    coarse = Rtn(4.0, group_size=0).fit(weight, NOTHING)
    lost, plain = ((one.dense() - weight).square().sum() for one in (held, coarse))
    assert lost < 0.5 * plain
