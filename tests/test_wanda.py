"""Wanda, checked by hand."""

import torch

from backend.calibrate.statistics import InputStatistics
from backend.methods.base import Needs
from backend.methods.prune.magnitude import Magnitude
from backend.methods.prune.wanda import Wanda


def test_a_small_weight_on_a_loud_input_outlives_a_large_one_on_a_quiet_input():
    """Scores |w| * norm: 8 of 16 stay in each row, by hand those below."""
    weight = torch.arange(1.0, 17.0).repeat(2, 1)
    weight[1] = -weight[1].flip(0)
    inputs = torch.ones(4, 16)
    inputs[:, 0] = 100  # scores 100 and 1600
    inputs[:, 15] = 0.01  # scores 0.16 and 0.01
    statistics = InputStatistics(16, Needs.NORMS)
    statistics.add(inputs)
    kept = Wanda(9.0).fit(weight, statistics).dense() != 0
    assert kept[0].nonzero().flatten().tolist() == [0, 8, 9, 10, 11, 12, 13, 14]
    assert kept[1].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    plain = Magnitude(9.0).fit(weight, statistics).dense()
    assert torch.equal(plain.abs() > 8, plain != 0), "without inputs, the largest"


def test_rows_compete_with_themselves_alone():
    weight = torch.ones(2, 16)
    weight[1] = 100
    weight[:, ::2] *= 2
    statistics = InputStatistics(16, Needs.NORMS)
    statistics.add(torch.ones(1, 16))
    kept = Wanda(9.0).fit(weight, statistics).dense() != 0
    assert kept.sum(1).tolist() == [8, 8]
    assert kept[:, ::2].all()
