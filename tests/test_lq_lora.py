"""LQ-LoRA: the paper's closed form against brute force, NormalFloat by hand, bytes and turns."""

import itertools

import pytest
import torch

from backend import formats
from backend.methods.quantise import _tables, lq_lora
from backend.methods.quantise.lq_lora import LqLora
from tests.contract import inputs_of, normal, statistics_of


def test_four_bits_of_normal_float_are_those_of_qlora():
    """Appendix E of arXiv 2305.14314."""
    expected = [
        -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
        0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
    ]  # fmt: skip
    assert lq_lora.normal_float(4).tolist() == pytest.approx(expected, abs=1e-4)


def test_factors_are_the_best_where_errors_count_by_row_and_by_column():
    """Fisher information that is a product of sides: no product of that rank loses less."""
    rows, columns = torch.rand(12, 1) + 0.1, torch.rand(1, 20) + 0.1
    sensitivity, weight = (rows * columns).square(), normal(12, 20)
    down, across = lq_lora._sides(sensitivity)
    ratio = (down * across).square() / sensitivity
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-4)
    left, right = lq_lora._rank.leading(weight * down * across, 2)
    product = (left / down) @ (right / across)

    def lost(other):
        return float((sensitivity * (weight - other).square()).sum())

    drawn = torch.Generator().manual_seed(1)
    for _ in range(50):
        moved = (left / down + 0.03 * torch.randn(12, 2, generator=drawn)) @ (
            right / across + 0.03 * torch.randn(2, 20, generator=drawn)
        )
        assert lost(product) < lost(moved)


def test_each_turn_loses_less_than_the_one_before():
    weight, statistics = normal(48, 96), statistics_of(inputs_of(96))
    sensitivity = statistics.sensitivity(48)
    method = LqLora(3.5, group_size=32)
    split = method._split(48, 96, 3.5, method._rank(48, 96))
    down, across = lq_lora._sides(sensitivity)
    lost = [
        float(((codes.dense() + factors.dense() - weight) * down * across).square().sum())
        for codes, factors in method._rounds(weight, split, 3, sensitivity)
    ]
    assert len(lost) > 1
    assert all(after < before for before, after in itertools.pairwise(lost))


def test_codes_and_factors_take_what_the_arithmetic_says():
    """By hand: 64 x 128 at rank 1 takes 2 * 192 bytes beside its codes, scales and tables."""
    method, weight = LqLora(4.0), normal(64, 128)
    held = method.fit(weight, statistics_of(inputs_of(128)))
    assert isinstance(held, formats.Sum)
    assert held.factors.rank == int(0.4 * 64 * 128 / 16 // 192) == 1
    assert held.factors.nbytes == 2 * 192
    split = method._split(64, 128, 4.0, method._rank(64, 128))
    assert _tables.nbytes((64, 128), 64, split) + 2 * 192 <= 4 * 64 * 128 // 8
    assert held.bits <= 4.0
    assert held.speed == "measured"


def test_the_factors_take_what_the_codes_cannot():
    """A loud outer product beside even weights: without factors its size would set every scale."""
    outer = torch.outer(normal(64, seed=2), normal(128, seed=3))
    weight = 0.05 * normal(64, 128) + outer
    statistics = statistics_of(normal(256, 128, seed=4))
    held = LqLora(3.5).fit(weight, statistics)
    alone = _tables.hold(
        weight, 64, (3, 3, 0), torch.ones_like(weight), lambda _, width: lq_lora.normal_float(width)
    )
    change, plain = (one.dense() - weight for one in (held, alone))
    assert change.square().sum() < 0.05 * plain.square().sum()


def test_factors_take_fewer_bits_where_codes_need_them_more():
    """Even weights have no direction to hold: of ranks 3 and 1 the thinner product loses less."""
    weight, statistics = normal(256, 256), statistics_of(normal(512, 256, seed=6))
    method = LqLora(3.0)
    assert {method._rank(256, 256, share) for share in lq_lora.SHARES} == {3, 1}
    assert method.fit(weight, statistics).factors.rank == 1
    loud = weight + 3 * normal(256, 3, seed=7) @ normal(3, 256, seed=8)
    assert method.fit(loud, statistics).factors.rank == 3
