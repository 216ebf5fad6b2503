"""SqueezeLLM: tables against every partition, Fisher against autograd, what is kept apart."""

import itertools

import pytest
import torch
from torch.nn import functional

from backend.calibrate import gradients
from backend.calibrate.modes import Bent, Parallel
from backend.calibrate.walk import Walk
from backend.methods.base import Needs
from backend.methods.quantise import _clusters
from backend.methods.quantise.squeezellm import Squeezellm
from backend.models.view import View
from tests import tiny_transformers as tiny
from tests.contract import inputs_of, normal, statistics_of


def best_by_partitions(values, weights, count):
    """Least weighted squared distance over every cut of the sorted values into stretches."""
    order = values.argsort()
    values, weights = values[order].double(), weights[order].double()
    least = float("inf")
    for cuts in itertools.combinations(range(1, len(values)), count - 1):
        loss = 0.0
        for start, stop in itertools.pairwise((0, *cuts, len(values))):
            part, weight = values[start:stop], weights[start:stop]
            mean = (part * weight).sum() / weight.sum()
            loss += float((weight * (part - mean).square()).sum())
        least = min(least, loss)
    return least


@pytest.mark.parametrize("count", [2, 4])
def test_tables_are_nearly_the_best_that_any_partition_gives(count):
    values, weights = normal(12, 14), normal(12, 14, seed=1).square()
    tables = _clusters.tables(values, weights, count)
    codes = _clusters.codes(values, tables)
    losses = (weights * (values - tables.gather(1, codes)).square()).sum(1)
    best = [best_by_partitions(v, w, count) for v, w in zip(values, weights, strict=True)]
    assert all(own >= 0.999 * least for own, least in zip(losses.tolist(), best, strict=True))
    assert float(losses.sum()) <= 1.1 * sum(best), "Lloyd's rounds end in a local best"
    ratios = [own / least for own, least in zip(losses.tolist(), best, strict=True)]
    assert sorted(ratios)[6] <= 1.01, "most rows find the best"


def test_codes_point_to_the_nearest_value():
    values, tables = normal(5, 40), normal(5, 8, seed=2).sort(dim=1).values
    expected = (values[:, :, None] - tables[:, None]).abs().argmin(-1)
    assert torch.equal(_clusters.codes(values, tables), expected)


def test_a_row_of_as_many_values_as_the_table_is_held_exactly():
    values = torch.tensor([[-2.0, -0.5, 0.25, 1.0]]).repeat(8, 16)
    held = Squeezellm(2.0 + 64 / 64 + 1e-6).fit(values, statistics_of(inputs_of(64)))
    assert held.code_bits == 2
    assert torch.equal(held.dense(), values)


def test_sensitive_weights_draw_the_values_to_them():
    """Hand example: values 0, 1, 2, 10 and one table entry each side; weight 100 on the 2."""
    values = torch.tensor([[0.0, 1.0, 2.0, 10.0]])
    even = _clusters.tables(values, torch.ones(1, 4), 2)
    drawn = _clusters.tables(values, torch.tensor([[1.0, 1.0, 100.0, 1.0]]), 2)
    assert torch.allclose(even, torch.tensor([[1.0, 10.0]]), atol=1e-4)
    assert drawn[0, 0] == pytest.approx((0 + 1 + 200) / 102, abs=1e-4)


def test_the_fisher_information_is_that_of_autograd():
    model, windows = tiny.build("llama"), tiny.tokens(3, 10)
    found = gradients.diagonal_fisher(View(model), windows)
    expected = {name: torch.zeros_like(tensor) for name, tensor in found.items()}
    model.requires_grad_(requires_grad=True)
    for window in windows:
        model.zero_grad()
        logits = model(input_ids=window[None]).logits[0, :-1]
        functional.cross_entropy(logits, window[1:], reduction="sum").backward()
        for name in expected:
            expected[name] += model.get_submodule(name).weight.grad.square() / 3
    for name, one in found.items():
        assert torch.allclose(one, expected[name], rtol=1e-3, atol=1e-6 * one.max()), name


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "gemma3", "opt"])
def test_every_linear_of_every_family_has_its_gradients_and_the_model_its_types(family):
    model = tiny.build(family, dtype=torch.bfloat16)
    view = View(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = gradients.diagonal_fisher(view, tiny.tokens(2, 12))
    for site in view.all_sites():
        assert found[site.name].shape == view.weight(site).shape
        assert float(found[site.name].sum()) > 0
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_gradients_are_kept_and_read_back(tmp_path):
    view, windows = View(tiny.build("llama")), tiny.tokens(2, 12)
    fresh = gradients.by_block(view, windows, tmp_path / "kept")
    again = gradients.by_block(View(tiny.build("llama", seed=5)), windows, tmp_path / "kept")
    source = Parallel(lambda: Walk(view, windows), Needs.NORMS, 2)
    for block in range(2):
        seen = Bent(source, again).enter(block)
        for name, one in fresh(block).items():
            assert torch.equal(again(block)[name], one)
            assert torch.equal(seen[name].sensitivity(one.shape[0]), one)


def test_the_largest_and_the_most_sensitive_weights_are_kept_apart():
    weight = 0.1 * normal(16, 1024)
    fisher = torch.ones_like(weight)
    weight[3, 5], weight[9, 100] = 4.0, -3.0
    fisher[7, 7] = 1e6
    statistics = statistics_of(inputs_of(1024, tokens=64)).bent(fisher)
    held = Squeezellm(4.0).fit(weight, statistics)
    apart = held.outliers.dense() != 0
    assert apart[3, 5] and apart[9, 100] and apart[7, 7]  # noqa: PT018
    assert torch.allclose(held.dense()[apart], weight[apart], rtol=0.01)
    assert int(apart.sum()) <= int(0.0045 * weight.numel())
