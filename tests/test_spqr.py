"""SpQR: the paper's count of bits, its outliers by brute force, and the plain recursion."""

import pytest
import torch

from backend.methods.quantise import _grid
from backend.methods.quantise.spqr import Spqr, _worth
from tests.contract import error, inputs_of, normal, statistics_of


def test_bits_are_those_of_the_papers_formula():
    """Equation for the average bits: b + 2 b_s / g + 64 / (g * 16) + 32 a share of outliers.

    With 256 columns a row's end of outliers is counted too: 32 / 256.
    """
    method = Spqr(3.625 + 0.04 * 32 + 32 / 256, outliers=0.04)
    held = method.fit(normal(64, 256), statistics_of(inputs_of(256)))
    count = int(0.04 * 64 * 256)
    assert held.outliers.values.numel() == count
    assert held.base.code_bits == 3
    assert held.base.bits == pytest.approx(3 + 6 / 16 + 64 / 256)
    assert held.bits == pytest.approx(3.625 + 32 * count / (64 * 256) + 32 / 256)


def test_what_an_outlier_would_save_is_that_of_leaving_it_out():
    """Each weight in turn: the loss of its group without it in the range, against with it."""
    weight, diagonal = normal(3, 16), 0.5 + torch.rand(16)
    saved, losses = _worth(weight, diagonal, 3, 8)
    for row in range(3):
        for start in (0, 8):
            group, cost = weight[row, start : start + 8], diagonal[start : start + 8].pow(-2)
            whole = float((rounded(group, group) - group).square() @ cost)
            for place in range(8):
                others = torch.arange(8) != place
                without = rounded(group[others], group[others])
                rest = float((without - group[others]).square() @ cost[others])
                expected = max(0.0, whole - rest)
                assert float(saved[row, start + place]) == pytest.approx(expected, abs=1e-4)
            assert float(losses[row, start : start + 8].sum()) == pytest.approx(whole, rel=1e-4)


def rounded(values, ranged):
    scale, offset = _grid.ranges(ranged, 3, symmetric=False)
    return _grid.decode(_grid.encode(values, scale, offset, 3), scale, offset, 3)


def few_bits(numbers, bits=3, shared=16):
    """Second level by hand: sixteen rows share the ends of their range."""
    found = torch.empty_like(numbers)
    for start in range(0, len(numbers), shared):
        part = numbers[start : start + shared]
        step = ((part.max() - part.min()) / (2**bits - 1)).bfloat16().float().clamp(min=1e-8)
        step = step.bfloat16().float()
        middle = (part.min() + 2 ** (bits - 1) * step).bfloat16().float()
        code = ((part - middle) / step + 2 ** (bits - 1)).round().clamp(0, 2**bits - 1)
        found[start : start + shared] = (code - 2 ** (bits - 1)) * step + middle
    return found


def recursion(weight, hessian, width, size, outside):
    """GPTQ's recursion on the explicit inverse, ranges set at each group, outliers exact."""
    left, inverse = weight.double().clone(), torch.linalg.inv(hessian.double())
    held = torch.zeros_like(left)
    for column in range(weight.shape[1]):
        if column % size == 0:
            group = left[:, column : column + size].float()
            apart = outside[:, column : column + size]
            mean = (group * ~apart).sum(1, keepdim=True) / (~apart).sum(1, keepdim=True)
            raw, offset = _grid.ranges(torch.where(apart, mean, group), width, symmetric=False)
            scale = few_bits(raw)
            offset = few_bits(offset + (scale - raw) / 2)
        code = ((left[:, column] - offset) / scale + 2 ** (width - 1)).round()
        point = (code.clamp(0, 2**width - 1) - 2 ** (width - 1)) * scale + offset
        kept = point + (left[:, column] - point).bfloat16()
        held[:, column] = torch.where(outside[:, column], kept, point)
        step = (left[:, column] - held[:, column]) / inverse[column, column]
        left[:, column:] -= step[:, None] * inverse[column, column:]
        row = inverse[column].clone()
        inverse -= torch.outer(row, row) / row[column]
    return held


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_what_is_held_is_what_the_plain_recursion_gives(share):
    weight, statistics = normal(32, 96), statistics_of(inputs_of(96))
    apart = int(share * weight.numel())
    bits = 3 + (6 + 4) / 16 + 32 * apart / weight.numel() + (32 / 96 if apart else 0)
    held = Spqr(bits + 1e-6, outliers=share).fit(weight, statistics)
    outside = torch.zeros_like(weight, dtype=torch.bool)
    if apart:
        sparse = held.outliers
        outside = sparse.dense() != 0
        assert int(outside.sum()) == apart
        held_base = held.base
    else:
        held_base = held
    assert held_base.code_bits == 3
    expected = recursion(weight, statistics.damped(0.01), 3, 16, outside)
    own = error(weight, held, statistics)
    change = weight.double() - expected
    plain = float(((change @ statistics.hessian.double()) * change).sum())
    assert own <= 1.01 * plain
    assert (held.dense().double() - expected).abs().mean() < 0.02 * weight.abs().mean()


def test_the_weights_that_stretch_their_groups_are_kept_apart():
    weight = 0.1 * normal(32, 256)
    far = torch.zeros_like(weight, dtype=torch.bool)
    far[torch.arange(32), 7 * torch.arange(32)] = True
    weight[far] = 5.0
    held = Spqr(4.6, outliers=0.02).fit(weight, statistics_of(inputs_of(256)))
    assert bool((held.outliers.dense() != 0)[far].all())
    assert torch.allclose(held.dense()[far], weight[far], atol=0.5), "mended, and hardly rounded"


def test_narrow_rows_go_without_outliers():
    assert Spqr(4.0).fit(normal(64, 128), statistics_of(inputs_of(128))).key != "sum"
