"""CBQ: outliers by the paper's rule, runs that overlap, rounding that blocks learn together."""

import gc
import math
import weakref

import pytest
import torch

from backend.calibrate import runs
from backend.compress import compress
from backend.methods.quantise import _grid
from backend.methods.quantise._low_rank_rounding import (
    LowRankRounding,
    divisors_of,
    outliers_from,
    rising,
)
from backend.methods.quantise.cbq import Cbq, distance
from backend.methods.quantise.rtn import Rtn
from backend.recipes import Recipe
from tests import tiny_transformers as tiny
from tests.contract import error, inputs_of, normal, statistics_of
from tests.test_flatquant import lost, with_outliers

WINDOWS = tiny.tokens(8, 16)
SHORT = "cbq(bits=4, group_size=32, steps=24, rate=0.03)"


def test_outliers_begin_where_the_gap_exceeds_the_variance_below_it_by_most():
    """By hand: quartiles 6 and 16, candidates beyond 31.

    Cut before 40 the gap is 24 squared, before 41 and 42 it is 1, before 90 it is 48 squared, less
    the variance 2/3 of the three that are kept then.
    """
    plain = [float(size) for size in range(1, 17)]
    assert outliers_from(torch.tensor([90.0, 41.0, *plain, 42.0, 40.0])) == 90
    assert outliers_from(torch.tensor([43.0, 41.0, *plain, 42.0, 40.0])) == 40
    assert outliers_from(torch.tensor(plain)) == math.inf
    assert outliers_from(torch.zeros(8)) == math.inf


def test_a_channel_that_stands_apart_is_divided_by_the_root_of_its_excess():
    """Peaks 1 to 16 and 400: 400 / 16 = 25, whose root is 5."""
    inputs = torch.diag(torch.tensor([*range(1, 17), -400.0]))
    assert divisors_of(inputs).tolist() == [*[1.0] * 16, 5.0]


def test_divisors_are_over_the_largest_channel_that_is_kept_of_those_beyond_the_quartiles():
    """Of 20 peaks, quartiles 6 and 16, four lie beyond 31: 100 and twice 101 are kept, 404 goes.

    Cut before 100 the gap is 84 squared, before 404 it is 303 squared, less the variance 2/9 of
    those that are kept: (100, 101, 101). 404 / 101 = 4, whose root is 2.
    """
    inputs = torch.diag(torch.tensor([404.0, 101.0, *range(1, 17), 101.0, 100.0]))
    assert divisors_of(inputs).tolist() == [2.0, *[1.0] * 19]


def test_the_stretched_sigmoid_reaches_both_whole_numbers():
    """1.2 / (1 + e^-v) - 0.1, by hand at 0 and where it is cut off: ln 11 = 2.398."""
    values = torch.tensor([-2.4, 0.0, math.log(3), 2.4])
    assert rising(values).tolist() == pytest.approx([0, 0.5, 0.8, 1])


def test_nothing_learned_is_rounding_to_nearest_where_no_weight_stands_apart():
    weight, statistics = (
        torch.rand(32, 128, generator=torch.manual_seed(0)),
        statistics_of(inputs_of(128)),
    )
    found = Cbq(4.25, steps=0).fit(weight, statistics)
    assert torch.equal(found.dense(), Rtn(4.25).fit(weight, statistics).dense())


def test_a_weight_that_stands_apart_is_cut_where_that_rounds_better():
    """A row of steps of 1 and one weight of 60, at two bits: the inputs of that one are small."""
    weight = torch.tensor([0.0, 1.0, 2.0, 3.0]).repeat(4, 32)
    weight[0, 7] = 60.0
    inputs = normal(512, 128)
    inputs[:, 7] *= 1e-3
    statistics = statistics_of(inputs)
    found = Cbq(2.25, steps=0).fit(weight, statistics)
    kept = weight.clone()
    kept[0, 7] = 3.0
    assert torch.allclose(found.dense(), kept, rtol=1e-2)
    inputs[:, 7] *= 1e6
    found = Cbq(2.25, steps=0).fit(weight, statistics_of(inputs)).dense()
    assert found[0, 7] == pytest.approx(60, rel=0.01)


def test_a_low_rank_matrix_turns_the_rounding_of_many_weights_at_once():
    """Added 10 everywhere all round up, subtracted all round down, whatever their share."""
    weight = torch.rand(8, 64, generator=torch.manual_seed(1))
    plan = _grid.plan(8, 64, 4.5, 64, symmetric=False)
    soft = LowRankRounding(weight, statistics_of(inputs_of(64)), plan, inputs=16, rank=1)
    scale, offset = (part for part in (soft._scales, soft._offsets))
    places = (weight - offset) / scale + 8
    soft.right.data.fill_(1.0)
    for added, edge in ((10.0, places.floor() + 1), (-10.0, places.floor())):
        soft.left.data.fill_(added)
        codes = soft.held().codes.get()
        assert torch.equal(codes, edge.clamp(0, 15).to(torch.uint8))


def test_distance_is_squares_as_a_share_and_divergence_by_hand():
    """Wanted 0 and ln 3, found twice 0: squares are all of it, 3/4 ln(3/2) + 1/4 ln(1/2) nats."""
    found = distance(torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]]))
    assert float(found) == pytest.approx(1 + 0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_a_matrix_alone_learns_to_lose_less():
    weight, seen = normal(64, 128), statistics_of(inputs_of(128))
    start, learned = (Cbq(3.25, steps=steps).fit(weight, seen) for steps in (0, 100))
    assert error(weight, learned, seen) < 0.5 * error(weight, start, seen)


def test_inputs_with_outliers_are_divided_and_more_bits_of_them_lose_less():
    weight, inputs = normal(128, 128), with_outliers()
    seen = statistics_of(inputs)
    weight[:, [5, 70]] /= 20
    held = [
        Cbq(4.5, inputs=bits, steps=steps).fit(weight, seen)
        for bits, steps in ((4, 0), (4, 100), (8, 0))
    ]
    losses = [lost(one, weight, inputs) for one in held]
    assert losses[1] < 0.9 * losses[0]
    assert losses[2] < 0.3 * losses[1]
    assert all((one.divisors > 1).nonzero().flatten().tolist() == [5, 70] for one in held)


def test_the_budget_counts_divisors_and_reach():
    """Codes of 4 bits, a scale and an offset a row, 128 divisors of 16 bits, and the reach."""
    held = Cbq(4.32, inputs=8).fit(normal(256, 128), statistics_of(inputs_of(128)))
    assert held.nbytes == 256 * 64 + 256 * 4 + 2 * 128 + 4


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((4, 2, 1), [(0, 2), (1, 3), (2, 4)]),
        ((5, 3, 1), [(0, 3), (2, 5)]),
        ((4, 3, 1), [(0, 3), (2, 4)]),
        ((3, 1, 0), [(0, 1), (1, 2), (2, 3)]),
        ((1, 2, 1), [(0, 1)]),
    ],
)
def test_runs_slide_over_the_blocks_and_end_with_the_last(settings, expected):
    assert runs.spans(*settings) == expected


def outputs(view):
    with torch.no_grad():
        return view.model(input_ids=WINDOWS, use_cache=False).logits


def test_blocks_that_learn_together_stay_nearer_to_the_model_than_unlearned_ones():
    build = lambda: tiny.build("llama", num_hidden_layers=3)  # noqa: E731
    dense = tiny.loaded_here(build()).model
    with torch.no_grad():
        wanted = dense(input_ids=WINDOWS, use_cache=False).logits
    losses = []
    for text in ("cbq(bits=4, group_size=32, steps=0)", SHORT):
        result = compress(tiny.loaded_here(build()), Recipe.parse(text), WINDOWS)
        losses.append(float((outputs(result.view) - wanted).square().mean()))
    assert losses[1] < 0.9 * losses[0]


def test_a_settled_block_lets_go_of_what_was_learned(monkeypatch):
    """Of three blocks that learn in twos, the one that the next run has too is all that stays."""
    softs, make, alive = [], Cbq.soft, {}

    def soft(self, weight, statistics):
        made = make(self, weight, statistics)
        softs.append(weakref.ref(made))
        return made

    def count(stage, done, _):
        gc.collect()
        if stage == "learn":
            alive[done] = sum(one() is not None for one in softs)

    monkeypatch.setattr(Cbq, "soft", soft)
    model = tiny.build("llama", num_hidden_layers=3)
    compress(tiny.loaded_here(model), Recipe.parse(SHORT.replace("24", "1")), WINDOWS, count)
    each = len(softs) // 3
    assert alive == {0: 0, 1: each, 2: 0}


class KilledError(Exception):
    """Stands for the end of a process."""


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    build = lambda: tiny.build("llama", num_hidden_layers=3)  # noqa: E731
    recipe = Recipe.parse(f"{SHORT} + eora@2")
    whole = outputs(compress(tiny.loaded_here(build()), recipe, WINDOWS).view)

    def kill(stage, done, _):
        if (stage, done) == ("learn", 1):
            raise KilledError

    with pytest.raises(KilledError):
        compress(tiny.loaded_here(build()), recipe, WINDOWS, kill, checkpoint=tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").glob("*.run.*")] == ["0.run.safetensors"]
    learned = []
    again = compress(
        tiny.loaded_here(build()),
        recipe,
        WINDOWS,
        lambda *told: learned.append(told),
        checkpoint=tmp_path / "kept",
    )
    assert torch.equal(outputs(again.view), whole)
    assert not (tmp_path / "kept").exists()


def test_every_family_learns_and_experts_that_no_token_reached_are_held_too():
    for family in tiny.CONFIGS:
        source = tiny.loaded_here(tiny.build(family))
        result = compress(source, Recipe.parse(SHORT.replace("24", "2")), WINDOWS)
        assert all(result.view.held(site) is not None for site in result.view.all_sites())
        assert torch.isfinite(outputs(result.view)).all(), family
