"""CFSP: shares of blocks and scores of neurons by hand, and what stays of a whole model."""

import math

import pytest
import torch

from backend.calibrate.walk import Walk
from backend.methods.base import Needs
from backend.methods.structure import cfsp
from backend.methods.structure.cfsp import Cfsp
from backend.models import units
from backend.models.units import Group
from backend.models.view import View
from tests import tiny_transformers as tiny

WINDOWS = tiny.tokens(4, 24)


def numbers(model):
    return sum(part.numel() for part in model.parameters())


def group(block, count, cost):
    return Group(block, f"{block}", count, 1, {}, cost, 0, neurons=True)


def test_shares_follow_a_sigmoid_of_the_angle_and_the_budget_is_spent():
    """By hand: angles 0.1 and 0.3 are 0.1 from their mean; e is the ratio of odds at 5."""
    groups = [group(0, 1000, 3), group(1, 1000, 3)]
    low, high = 1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(-0.5))
    counts = Cfsp(8.0, sharpness=5.0).counts(6000, groups, [0.1, 0.3])
    assert counts == pytest.approx([1000 * low, 1000 * high], abs=1), "half, as low + high = 1"
    assert 3 * sum(counts) <= 3000
    assert Cfsp(8.0, sharpness=0.0).counts(6000, groups, [0.1, 0.3]) == [500, 500]


def test_a_block_that_is_full_leaves_the_rest_of_the_budget_to_others():
    groups = [group(0, 100, 2), group(1, 100, 2)]
    counts = Cfsp(12.0, sharpness=500.0).counts(400, groups, [0.1, 0.2])
    assert counts == [50, 100]
    assert Cfsp(16.0).counts(400, groups, [0.1, 0.2]) == [100, 100]
    assert Cfsp(8.05, sharpness=500.0).counts(400, groups, [0.1, 0.2]) == [1, 99]


def test_the_steepest_sigmoid_spends_the_budget_however_far_apart_blocks_are():
    """Shares differ by e^250: only the surest block keeps more than a neuron until it is full."""
    groups = [group(0, 100, 2), group(1, 100, 2)]
    assert Cfsp(12.0, sharpness=500.0).counts(400, groups, [0.0, 0.5]) == [50, 100]
    assert Cfsp(6.0, sharpness=500.0).counts(400, groups, [0.0, 1.0]) == [1, 74]


def test_the_score_is_relative_weights_times_loudness():
    """By hand, on weights written into a model: two neurons count, and the second is twice as loud.

    Readers 1 and 1 with loudness 1 and 2 share as 1/3 and 2/3; writers 3 and 1 as 3/4 and 1/4.
    """
    model = tiny.build("llama", num_hidden_layers=1)
    view = View(model)
    (one,) = [part for part in units.find(view)[0] if part.neurons]
    with torch.no_grad():
        for name in (one.reader, *one.writers):
            model.get_submodule(name).weight.zero_()
        model.get_submodule(one.reader).weight[:, :2] = -1.0
        for name in one.writers:
            model.get_submodule(name).weight[0] = 3.0
            model.get_submodule(name).weight[1] = -1.0
    loudness = torch.zeros(one.units)
    loudness[:2] = torch.tensor([1.0, 2.0])
    found = cfsp.score(view, one, loudness)
    assert len(one.writers) == 2
    assert found[:2].tolist() == pytest.approx([1 * (1 / 3 + 2 * 3 / 4), 2 * (2 / 3 + 2 * 1 / 4)])
    assert torch.equal(found[2:], torch.zeros(one.units - 2))


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "mixtral"])
def test_what_stays_are_the_neurons_of_the_highest_score_as_they_were(family):
    model = tiny.build(family)
    view = View(model)
    whole = numbers(model)
    groups = [one for one in units.find(view)[0] if one.neurons and one.block == 0]
    seen = Walk(view, WINDOWS).gather(0, Needs.NORMS)
    scores = {
        one.reader: cfsp.score(view, one, seen[one.reader].mean_squares.sqrt()) for one in groups
    }
    before = {
        one.reader: view.weight(site)
        for one, site in zip(groups, _sites(view, groups), strict=True)
    }
    biases = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    record = Cfsp(14.5, sharpness=0.0).rewrite(Walk(view, WINDOWS))
    assert 14.0 / 16 * whole < numbers(model) <= 14.5 / 16 * whole
    assert [name for name, _ in model.named_parameters() if name.endswith("bias")] == biases
    cut = 0
    for one, site in zip(groups, _sites(view, groups), strict=True):
        stay = torch.tensor(record["kept"][one.reader])
        assert torch.equal(view.weight(site), before[one.reader][:, stay])
        if not bool(stay.all()):
            cut += 1
            assert scores[one.reader][stay].min() >= scores[one.reader][~stay].max()
    assert cut


def _sites(view, groups):
    sites = {site.name: site for site in view.sites(0)}
    return [sites[one.reader] for one in groups]


def test_a_block_that_does_nothing_loses_most():
    model = tiny.build("llama", num_hidden_layers=3)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.mul_(1e-3)
    view = View(model)
    record = Cfsp(14.0).rewrite(Walk(view, WINDOWS))
    counts = [sum(stay) for stay in record["kept"].values()]
    assert counts[1] < 0.8 * min(counts[0], counts[2])
