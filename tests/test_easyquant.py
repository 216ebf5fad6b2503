"""EasyQuant: outliers by deviations, ranges by gradient against a search, without data."""

import pytest
import torch

from backend.calibrate.statistics import InputStatistics
from backend.methods.base import Needs
from backend.methods.quantise import easyquant
from backend.methods.quantise.easyquant import Easyquant
from tests.contract import normal

NOTHING = InputStatistics(1024, Needs.NOTHING)


def by_search(row, half):
    """The least change over a fine grid of scales."""
    top = float(row.abs().max()) / (half - 0.5)
    scales = torch.linspace(0.2 * top, top, 3000).bfloat16().float()[:, None]
    codes = (row / scales).round().clamp(-half, half - 1)
    return float((codes * scales - row).square().sum(1).min())


@pytest.mark.parametrize("width", [2, 3, 4])
def test_descent_ends_within_a_few_percent_of_the_best_range(width):
    weight = normal(24, 256)
    _, _, errors = easyquant._descend(weight, width, 256)
    best = torch.tensor([by_search(row, 1 << (width - 1)) for row in weight])
    plain = torch.tensor([one_step(row, 1 << (width - 1)) for row in weight])
    assert float(errors.sum()) <= 1.03 * float(best.sum())
    assert float(errors.sum()) < 0.9 * float(plain.sum())


def one_step(row, half):
    scale = row.abs().max() / (half - 0.5)
    codes = (row / scale).round().clamp(-half, half - 1)
    return float((codes * scale - row).square().sum())


def test_codes_and_scales_give_the_errors_that_are_told():
    weight = normal(8, 100)
    codes, scales, errors = easyquant._descend(weight, 3, 32)
    held = (codes - 4) * scales.repeat_interleave(32, 1)[:, :100]
    assert torch.allclose((held - weight).square().sum(1), errors, rtol=1e-4)


def test_weights_beyond_three_deviations_are_kept_apart_and_no_more_than_the_share():
    weight = 0.1 * normal(16, 1024)
    spread = weight.std(1, unbiased=False, keepdim=True)
    far = ((weight - weight.mean(1, keepdim=True)).abs() / spread) > 3
    share = float(far.float().mean())
    assert 0.002 < share < 0.004, "of normal numbers 0.27 % lie beyond three deviations"
    held = Easyquant(4.4, deviations=3.0).fit(weight, NOTHING)
    if held.key == "sum":
        assert torch.equal(held.outliers.dense() != 0, far & (held.outliers.dense() != 0))
    most = Easyquant(4.8, deviations=1.0, outliers=0.006).fit(weight, NOTHING)
    assert most.outliers.values.numel() == int(0.006 * weight.numel())


def test_one_large_weight_a_row_no_longer_sets_the_range():
    weight = 0.1 * normal(16, 1024)
    for place in range(5):
        weight[:, 11 + place] = 3.0
    apart = Easyquant(4.4).fit(weight, NOTHING)
    whole = Easyquant(4.4, outliers=0.0).fit(weight, NOTHING)
    assert torch.allclose(apart.dense()[:, 11:16], weight[:, 11:16], rtol=0.02)
    inside = torch.ones(1024, dtype=torch.bool)
    inside[11:16] = False
    lost, plain = (
        float((one.dense() - weight)[:, inside].square().sum()) for one in (apart, whole)
    )
    assert lost < 0.7 * plain
