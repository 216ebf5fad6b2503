"""ZipLM: what goes and what makes up for it by hand and by brute force, and the budgets kept."""

import itertools

import pandas as pd
import pytest
import torch

from backend.calibrate.walk import Walk
from backend.estimate import estimate
from backend.methods.structure import _surgery, ziplm
from backend.methods.structure.ziplm import Ziplm
from backend.models import units
from backend.models.load import load
from backend.models.view import View
from backend.recipes import Recipe
from backend.sources import ModelSource
from tests import tiny_transformers as tiny
from tests.looking import normal

WINDOWS = tiny.tokens(6, 24)


def correlated(columns, seed=0):
    inputs = normal(200, columns, seed=seed) @ normal(columns, columns, seed=seed + 1)
    return (inputs.T @ inputs / 200).double() + 0.1 * torch.eye(columns)


def lost(weight, hessian, columns):
    """Squared error of the outputs that least squares leave with these columns alone."""
    root = torch.linalg.cholesky(hessian)  # inputs whose mean square is the Hessian
    target = root.T @ weight.double().T
    if not columns:
        return float(target.square().sum())
    own = root.T[:, columns]
    found = torch.linalg.lstsq(own, target).solution
    return float((own @ found - target).square().sum())


def test_of_two_neurons_that_say_the_same_one_goes_for_nothing():
    """By hand: inputs 1 and 2 are equal, weights 3 and 4 add up to 7; the third is on its own."""
    hessian = torch.eye(3, dtype=torch.float64)
    hessian[0, 1] = hessian[1, 0] = 1 - 1e-9
    weight = torch.tensor([[3.0, 4.0, 1.0]])
    order, losses = _surgery.removed(weight, hessian, 1)
    assert order[0] in (0, 1)
    assert losses[1] == pytest.approx(0, abs=1e-6)
    assert order[1] == 2
    assert losses[2] == pytest.approx(1 / (49 + 1), rel=1e-5)
    assert losses[3] == pytest.approx(1, rel=1e-5)
    stay = torch.tensor([True, False, True])
    mended = _surgery.mended(weight, hessian, stay)
    assert mended[0].tolist() == pytest.approx([7, 0, 1], abs=1e-5)


@pytest.mark.parametrize("width", [1, 3])
def test_errors_are_those_of_least_squares_and_each_step_is_the_best(width):
    units, weight, hessian = 6, normal(5, 6 * width), correlated(6 * width)
    order, losses = _surgery.removed(weight, hessian, width)
    whole = lost(weight, hessian, [])

    def columns(left):
        return [one * width + place for one in left for place in range(width)]

    assert sorted(order) == list(range(units))
    for gone in range(1, units + 1):
        before = [one for one in range(units) if one not in order[: gone - 1]]
        each = [lost(weight, hessian, columns([o for o in before if o != one])) for one in before]
        assert losses[gone] == pytest.approx(min(each) / whole, rel=1e-6)
    stay = torch.zeros(units * width, dtype=torch.bool)
    stay[columns(order[3:])] = True
    found = (_surgery.mended(weight, hessian, stay) - weight).double()
    assert float(((found @ hessian) * found).sum() / whole) == pytest.approx(losses[3], rel=1e-4)


def test_profiles_are_those_of_trying_every_choice():
    """Whole costs, so that nothing is rounded: 24 parts of a cost of 24."""
    errors = [[0.0, 1.0, 5.0], [0.0, 0.5, 0.7, 4.0], [0.0, 2.0]]
    costs = [[9.0, 5.0, 1.0], [10.0, 6.0, 4.0, 1.0], [5.0, 2.0]]
    profiles = _surgery.Profiles(errors, costs, 24)
    for budget in range(4, 25):
        every = [
            (sum(e[i] for e, i in zip(errors, levels, strict=True)), levels)
            for levels in itertools.product(range(3), range(4), range(2))
            if sum(c[i] for c, i in zip(costs, levels, strict=True)) <= budget
        ]
        found = next(
            levels
            for levels in profiles.under(budget)
            if sum(c[i] for c, i in zip(costs, levels, strict=True)) <= budget
        )
        assert sum(e[i] for e, i in zip(errors, found, strict=True)) == pytest.approx(min(every)[0])


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "mixtral", "neox", "gemma2"])
def test_a_cut_model_keeps_its_budget_and_a_skeleton_takes_its_shape(family):
    model, twin = tiny.build(family), tiny.build(family, seed=1)
    whole, view = View(model).numbers, View(model)
    record = Ziplm(11.0, trials=3).rewrite(Walk(view, WINDOWS))
    assert 0.95 * 11 / 16 * whole < view.numbers <= 11 / 16 * whole
    Ziplm.rebuild(View(twin), record)
    twin.load_state_dict(model.state_dict())
    tokens = WINDOWS[:1]
    assert torch.equal(twin(input_ids=tokens).logits, model(input_ids=tokens).logits)


def test_a_block_that_says_nothing_gives_most():
    model = tiny.build("llama")
    view = View(model)
    quiet = next(one for one in units.find(view)[0] if one.neurons and one.block == 1)
    with torch.no_grad():
        model.get_submodule(quiet.reader).weight[:, 8:] = 0
    record = Ziplm(13.0, trials=0).rewrite(Walk(view, WINDOWS))
    kept = record["kept"].pop(quiet.reader)
    assert 8 <= sum(kept) < 24
    assert all(kept[:8]), "the others are read by nothing"
    assert all(map(all, record["kept"].values())), "so all else stays"


def test_weights_by_which_the_model_reads_no_worse_are_taken():
    losses = []
    for trials in (0, 30):
        view = View(tiny.build("llama"))
        walk = Walk(view, WINDOWS)
        cuts = list(Ziplm(11.0)._observed(walk, units.find(view)[0]))
        choice = ziplm._Choice(Ziplm(11.0, trials=trials), view, cuts)
        before = {name: part.clone() for name, part in view.model.state_dict().items()}
        counts = choice.searched(WINDOWS)
        assert all(torch.equal(view.model.state_dict()[name], one) for name, one in before.items())
        levels = [cut.counts.index(count) for cut, count in zip(cuts, counts, strict=True)]
        losses.append(choice._loss(levels, WINDOWS))
    assert losses[1] <= losses[0]


def test_a_speed_up_is_kept_by_the_table_and_one_out_of_reach_is_told(monkeypatch):
    """Times by hand: a number takes a nanosecond, so twice as fast is half of all numbers."""
    monkeypatch.setattr(ziplm, "_seconds", lambda rows, columns, *_: 1e-9 * rows * columns)
    view = View(tiny.build("llama"))
    groups = units.find(view)[0]
    matrices = sum(one.units * one.cost for one in groups)
    before = view.numbers
    record = Ziplm(16.0, speedup=2.0, trials=2).rewrite(Walk(view, WINDOWS))
    gone = before - view.numbers
    assert 0.5 * matrices <= gone <= 0.56 * matrices
    assert "2x was asked for" in record["remarks"][0]
    record = Ziplm(16.0, speedup=50.0, trials=0).rewrite(Walk(View(tiny.build("llama")), WINDOWS))
    assert all(sum(kept) == 1 for kept in record["kept"].values())
    assert "50x was asked for" in record["remarks"][0]


def test_times_are_measured_and_fall_with_the_width():
    view = View(tiny.build("llama"))
    cuts = list(Ziplm()._observed(Walk(view, WINDOWS), units.find(view)[0]))
    for cut, times in zip(cuts, ziplm.timed(view, cuts, 4), strict=True):
        assert len(times) == len(cut.counts)
        assert times == sorted(times, reverse=True)
        assert times[-1] > 0


def test_memory_expected_holds_what_is_kept_of_all_blocks():
    """Moments of what each reader reads, its weight and the one mended last, in 32 bits."""
    source = ModelSource.parse("default")
    none = pd.DataFrame({"model": [], "family": [], "seconds": []})
    ziplm, gptq = (
        estimate(Recipe.parse(text), source, none) for text in ("ziplm@13", "gptq(bits=4)")
    )
    view = View(load(source).model)
    cuts = list(Ziplm()._observed(Walk(view, WINDOWS), units.find(view)[0]))
    kept = 0
    for cut in cuts:
        _, mended = cut.at(cut.counts[1])
        kept += sum(one.nbytes for one in (cut._weight, cut._hessian, mended))
        assert cut._made[0] == cut.counts[1], "no other is kept"
    beside = [one.compressing_bytes - one.resident_bytes for one in (ziplm, gptq)]
    assert kept <= beside[0] - beside[1] < 2 * kept
