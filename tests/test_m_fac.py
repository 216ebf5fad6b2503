"""M-FAC: inverse Fisher products against the matrix itself, and gradients against autograd."""

import math

import pandas as pd
import pytest
import torch

from backend.calibrate.gradients import of_each
from backend.calibrate.statistics import InputStatistics
from backend.compress import compress
from backend.estimate import estimate
from backend.methods.base import Needs
from backend.methods.prune.m_fac import Fisher, MFac
from backend.models.view import View
from backend.recipes import Recipe
from backend.sources import ModelSource
from tests import tiny_transformers as tiny
from tests.looking import normal


def whole(gradients, damping=0.01):
    """The Fisher matrix with its damping, in full."""
    gradients = gradients.double()
    ridge = damping * float(gradients.square().mean())
    mean = gradients.T @ gradients / len(gradients)
    return mean + ridge * torch.eye(gradients.shape[1], dtype=torch.float64)


def test_an_inverse_diagonal_by_hand():
    """One gradient (3, 4), damping 1: l = 12.5, and (l + g^2) over l (l + 25) with g exchanged."""
    found = Fisher(torch.tensor([[[3.0, 4.0]]]), 1.0).inverse_diagonal(torch.ones(1, 2).bool())
    assert found[0].tolist() == pytest.approx([28.5 / 468.75, 21.5 / 468.75], rel=1e-4)


def test_the_diagonal_is_that_of_the_inverse_of_what_is_there():
    gradients, mask = normal(6, 20), normal(3, 20, seed=1) > -0.5
    found = Fisher(gradients[None], 0.01).inverse_diagonal(mask)
    for row in range(3):
        there = mask[row]
        expected = whole(gradients)[there][:, there].inverse().diagonal()
        assert torch.allclose(found[row][there].double(), expected, rtol=1e-3)


def test_what_stays_takes_what_least_squares_would_give_it():
    """Brute force: the least of the parabola of the change, with zeros where weights went."""
    gradients, weight = normal(6, 20), normal(3, 20, seed=2)
    mask = normal(3, 20, seed=1) > 0
    found, _ = Fisher(gradients[None], 0.01).mended(weight, mask, again=False)
    fisher = whole(gradients)
    assert (found[~mask] == 0).all()
    for row in range(3):
        there = mask[row]
        own = weight[row].double()
        push = fisher[there][:, ~there] @ own[~there]
        expected = own[there] + torch.linalg.solve(fisher[there][:, there], push)
        assert torch.allclose(found[row][there].double(), expected, rtol=1e-3, atol=1e-4)


def test_rows_may_have_gradients_of_their_own():
    gradients, weight, mask = normal(40, 6, 20), normal(40, 20, seed=2), normal(40, 20, seed=1) > 0
    ridge = 0.01 * float(gradients.square().mean())
    fisher = Fisher(gradients, 0.01)
    found, diagonal = fisher.mended(weight, mask, again=True)
    assert torch.equal(diagonal, fisher.inverse_diagonal(mask))
    for row in (0, 17, 39):
        own = Fisher(gradients[row : row + 1], ridge / float(gradients[row].square().mean()))
        alone, _ = own.mended(weight[row : row + 1], mask[row : row + 1], again=False)
        assert torch.allclose(found[row], alone[0], rtol=1e-3, atol=1e-4)


def seen(gradients):
    statistics = InputStatistics(gradients.shape[2], Needs.HESSIAN)
    statistics.add(normal(64, gradients.shape[2]))
    return statistics.sloped(gradients)


def rise(gradients, change):
    flat = change.double().flatten()
    return float(flat @ whole(gradients.flatten(1)) @ flat)


def test_the_loss_rises_far_less_than_by_size_at_once_and_in_steps():
    gradients, weight = normal(12, 8, 32) * torch.exp(normal(8, 32, seed=3)), normal(8, 32, seed=4)
    statistics = seen(gradients)
    settings = {"block": "matrix"}
    held = [MFac(9.0, steps=steps, **settings).fit(weight, statistics).dense() for steps in (1, 8)]
    assert all(int((one != 0).sum()) == 128 for one in held)
    small = weight * (weight.abs() >= weight.abs().flatten().kthvalue(129).values)
    lost = [rise(gradients, one.float() - weight) for one in held]
    assert max(lost) < 0.3 * rise(gradients, small - weight)


def test_gradients_of_each_text_are_those_of_autograd():
    model, windows = tiny.build("llama"), tiny.tokens(3, 10)
    found = of_each(View(model), windows, 1)
    name = "model.layers.1.mlp.down_proj"
    weight = model.get_submodule(name).weight
    weight.requires_grad_()
    for place in range(3):
        logits = model(input_ids=windows[place : place + 1]).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, windows[place, 1:], reduction="sum")
        (expected,) = torch.autograd.grad(loss, weight)
        assert torch.allclose(found[name][place].float(), expected, rtol=0.02, atol=1e-3)
    assert set(found) == {site.name for site in View(model).sites(1)}


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_whole_models_are_pruned_by_their_own_gradients(family):
    windows, losses = tiny.tokens(6, 24), []
    dense = tiny.build(family)(input_ids=windows).logits
    for recipe in ("m-fac@9", "magnitude@9"):
        source = tiny.loaded_here(tiny.build(family))
        compress(source, Recipe.parse(recipe), windows)
        losses.append(float((source.model(input_ids=windows).logits - dense).square().mean()))
    assert losses[0] < losses[1]


def test_memory_expected_holds_gradients_of_a_block_and_those_of_a_matrix_at_work():
    """64 texts: two bytes for each number of a block, and twice four for each of a matrix."""
    source = ModelSource.parse("default")
    none = pd.DataFrame({"model": [], "family": [], "seconds": []})
    found = [estimate(Recipe.parse(text), source, none) for text in ("m-fac@9", "lq-lora@4")]
    beside = [one.compressing_bytes - one.resident_bytes for one in found]
    shapes = source.shapes().items()
    block = sum(math.prod(shape) for name, shape in shapes if "layers.0." in name)
    assert beside[0] - beside[1] == 64 * (2 * block + 8 * 256 * 128)
