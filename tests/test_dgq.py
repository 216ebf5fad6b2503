"""DGQ: both searches against every choice, integers of eight bits, bytes by hand."""

import pytest
import torch

from backend.methods.quantise import dgq
from backend.methods.quantise.dgq import Dgq
from tests.contract import error, inputs_of, normal, statistics_of


def test_a_group_takes_its_codes_a_multiple_and_a_zero_point_and_a_row_one_number():
    weight, hessian = normal(64, 256), statistics_of(inputs_of(256)).damped(0.01)
    held = dgq._Rows(weight, hessian, dgq._group_sizes.GROUPS.index(32)).held(slice(None))
    groups = 256 // 32
    assert held.bits == 4 + (8 + 4) / 32 + 16 / 256
    assert held.parts() == {
        "codes/plane4": 64 * 128,
        "scales/codes/plane8": 64 * groups,
        "scales/scales/values": 64 * 2,
        "zero_points/plane4": 64 * groups // 2,
    }
    assert held.speed == "measured"


def test_every_weight_is_an_integer_of_eight_bits_times_the_number_of_its_row():
    hessian = statistics_of(inputs_of(256)).damped(0.01)
    held = dgq._Rows(normal(16, 256), hessian, 4).held(slice(None))
    whole = held.dense() / held.scales.scales.dense()
    assert torch.allclose(whole, whole.round(), atol=1e-3)
    assert whole.min() >= -128
    assert whole.max() <= 127
    multiples = held.scales.codes.get().int() - 128
    assert multiples.min() >= 1
    assert multiples.max() == 8


def change_by(group, scale):
    """By the formula: the range cut at both ends alike, 16 values."""
    low, high = min(0.0, float(group.min())), max(0.0, float(group.max()))
    share = min(1.0, 15 * scale / (high - low))
    zero = min(15, max(0, round(-low * share / scale)))
    codes = [min(15, max(0, round(value / scale + zero))) for value in group.tolist()]
    return torch.tensor([(code - zero) * scale for code in codes]) - group


def test_each_group_keeps_the_best_share_beside_what_those_before_it_changed():
    weight, hessian = normal(3, 80), statistics_of(inputs_of(80)).hessian
    ends = torch.nn.functional.pad(weight, (0, 16)).view(3, 3, 32)
    steps = (ends.amax(-1) - ends.amin(-1)) / 15
    choices = [share * steps for share in dgq.SHARES]
    found, lost = dgq.searched(weight, hessian, 32, choices)
    for row in range(3):
        change = torch.zeros(80)
        for place in range(3):
            own = slice(32 * place, min(32 * place + 32, 80))
            group = weight[row, own]
            losses = []
            for scale in [*(float(one[row, place]) for one in choices), float(found[row, place])]:
                change[own] = change_by(group, scale)
                losses.append(float(change @ hessian @ change))
            assert losses[-1] == pytest.approx(min(losses), rel=1e-3)
        assert losses[-1] == pytest.approx(float(lost[row]), rel=1e-3)


def on_a_grid(rows, columns):
    """Groups of 32 with steps that are multiples 8 and 3 of 1/64 in turns."""
    draw = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (rows, columns), generator=draw)
    codes[:, ::32], codes[:, 1::32] = 0, 15
    steps = torch.tensor([8.0, 3.0]).repeat(columns // 64).repeat_interleave(32) / 64
    return (codes - 7) * steps


def test_a_row_on_such_a_grid_is_held_as_it_is():
    """The first search finds both steps, the second their number."""
    weight = on_a_grid(8, 256)
    held = Dgq(4.5).fit(weight, statistics_of(inputs_of(256)))
    assert torch.equal(held.dense(), weight)


def test_smaller_groups_lose_less_and_a_row_that_does_better_in_larger_ones_keeps_them():
    weight, statistics = normal(32, 256), statistics_of(inputs_of(256))
    held = [Dgq(bits).fit(weight, statistics) for bits in (4.16, 4.3, 4.5)]
    lost = [error(weight, one, statistics) for one in held]
    assert lost[0] > lost[1] > lost[2]
    hessian = statistics.damped(0.01)
    fine, coarse = (dgq._Rows(weight, hessian, place).losses for place in (4, 3))
    assert 0 < held[2].fine.rows == int((fine < coarse).sum()) < 32


def test_a_row_in_larger_groups_does_not_take_more_than_the_budget_by_its_mask():
    """By hand: 4 bits, 12 of 32 and 16 of 128 are 4.5; one row saves 24 bits, 64 of mask cost 64.

    The row of zeros does as well in larger groups, all others lie on a grid of the smaller ones.
    """
    weight = on_a_grid(64, 128)
    weight[7] = 0.0
    held = Dgq(4.5).fit(weight, statistics_of(inputs_of(128)))
    assert held.bits == 4.5
    assert torch.equal(held.dense(), weight)


def test_a_budget_between_two_sizes_gives_smaller_groups_to_the_rows_that_gain_most():
    weight, statistics = normal(64, 128), statistics_of(inputs_of(128))
    weight[::4] *= 20
    held = Dgq(4.37).fit(weight, statistics)
    hessian = statistics.damped(0.01)
    gains = dgq._Rows(weight, hessian, 3).losses - dgq._Rows(weight, hessian, 4).losses
    chosen = held._order().argsort()[: held.fine.rows]
    assert held.bits <= 4.37
    assert set(chosen.tolist()) == set(gains.topk(held.fine.rows).indices.tolist())
