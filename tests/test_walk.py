"""The walk over a model's blocks: what each layer reads, its statistics, and what is shared."""

import itertools

import pytest
import torch

from backend.calibrate import walk as walking
from backend.calibrate.walk import Walk
from backend.compress import compress
from backend.methods.base import Needs
from backend.models.view import View
from backend.recipes import Recipe
from tests import tiny_transformers as tiny
from tests.compressed import WINDOWS, same, state_of, tiny_source


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("limit", [1 << 28, 0])
def test_every_layer_sees_what_those_treated_before_it_make(kind, limit, monkeypatch):
    """One pass a block gives what gathering anew for each layer does; two, where it is wide."""
    monkeypatch.setattr(walking, "AT_ONCE", limit)
    recipe = Recipe.parse("gptq(bits=2.5, group_size=0)")
    seen = []
    result = compress(
        tiny.loaded_here(tiny.build(kind)), recipe, WINDOWS, lambda *at: seen.append(at)
    )
    model = tiny.build(kind)
    view = View(model)
    view.check(WINDOWS[:2])
    walk = Walk(view, WINDOWS)
    for block in range(2):
        before = walk.gather(block, Needs.HESSIAN)
        for site in view.sites(block):
            now = before if limit == 0 else walk.gather(block, Needs.HESSIAN)
            held = recipe.stages[0].fit(view.weight(site), now[site.name])
            found = result.view.held(site).dense()
            assert (found - held.dense()).norm() <= 1e-3 * held.dense().norm(), site.name
            view.hold(site, result.view.held(site))
        walk.advance(block)
    assert [at[1] for at in seen] == list(range(len(view.blocks) + 1))


def test_a_wide_block_behind_narrow_ones_sees_few_windows_at_a_time(monkeypatch):
    view = View(tiny.build("llama"))
    view.check(WINDOWS[:2])
    network = view.blocks[1].mlp
    before = max(max(view.shape(site)) for site in view.sites(0))
    for name, (rows, columns) in {
        "gate_proj": (4 * before, tiny.WIDTH),
        "up_proj": (4 * before, tiny.WIDTH),
        "down_proj": (tiny.WIDTH, 4 * before),
    }.items():
        setattr(network, name, torch.nn.Linear(columns, rows, bias=False))
    monkeypatch.setattr(walking, "AT_ONCE", WINDOWS.numel() * before)
    monkeypatch.setattr(walking, "BATCH_TOKENS", WINDOWS.shape[1])
    walk, read = Walk(view, WINDOWS), []
    network.register_forward_hook(lambda _, arguments, __: read.append(len(arguments[0])))
    assert len(walk.hidden) == len(WINDOWS)
    read.clear()
    for block in range(2):
        walk.through(block, Needs.NORMS, lambda *_: None)
    assert read == [1] * (2 * len(WINDOWS))


@pytest.mark.parametrize("text", ["gptq(bits=3.5, group_size=0)", "lord@12 + rtn@6"])
def test_experts_are_treated_alike_on_kept_statistics_and_on_fresh_ones(text, tmp_path):
    recipe, kept = Recipe.parse(text), tmp_path / "statistics" / "key"
    fresh, first, second = (
        compress(tiny_source("qwen3moe"), recipe, WINDOWS, parallel=True, statistics=folder)
        for folder in (None, kept, kept)
    )
    assert same(state_of(first.view), state_of(fresh.view))
    assert same(state_of(second.view), state_of(fresh.view))
    assert first.remarks == second.remarks == fresh.remarks
    sequential = compress(tiny_source("qwen3moe"), recipe, WINDOWS)
    assert not same(state_of(sequential.view), state_of(fresh.view))


def test_statistics_are_the_moments_of_what_each_layer_reads():
    view = View(tiny.build("llama"))
    walk = Walk(view, WINDOWS)
    hidden = torch.cat(walk.hidden)
    inputs = view.blocks[0].input_layernorm(hidden).view(-1, tiny.WIDTH)
    found = walk.gather(0, Needs.HESSIAN)["model.layers.0.self_attn.q_proj"]
    assert found.count == WINDOWS.numel()
    assert torch.allclose(found.hessian, inputs.T @ inputs / WINDOWS.numel(), atol=1e-5)
    norms = walk.gather(0, Needs.NORMS)["model.layers.0.self_attn.q_proj"]
    assert torch.allclose(norms.mean_squares, found.hessian.diagonal(), rtol=1e-5)


def test_layers_that_read_the_same_input_share_their_statistics():
    view = View(tiny.build("llama"))
    found = {
        name.rpartition(".")[2]: statistics
        for name, statistics in Walk(view, WINDOWS).gather(0, Needs.HESSIAN).items()
    }
    assert found["q_proj"] is found["k_proj"] is found["v_proj"]
    assert found["gate_proj"] is found["up_proj"]
    assert len({id(statistics) for statistics in found.values()}) == 4
    for family in ("mixtral", "gpt2"):
        view = View(tiny.build(family))
        found = Walk(view, WINDOWS).gather(0, Needs.HESSIAN)
        assert set(found) == {site.name for site in view.sites(0)}
        for site in view.sites(0):
            assert found[site.name].columns == view.weight(site).shape[1]


def test_batches_add_up_to_the_same_statistics(monkeypatch):
    def hessians():
        found = Walk(View(tiny.build("llama")), WINDOWS).gather(0, Needs.HESSIAN)
        return {name: statistics.hessian for name, statistics in found.items()}

    whole = hessians()
    monkeypatch.setattr(walking, "BATCH_TOKENS", 16)
    assert len(Walk(View(tiny.build("llama")), WINDOWS).hidden) == 4
    for name, hessian in hessians().items():
        assert torch.allclose(hessian, whole[name], atol=1e-5)


@pytest.mark.parametrize("text", ["wanda@9", "gptq(bits=6, group_size=32)"])
def test_an_expert_that_no_token_reached_is_named_and_treated(text):
    source = tiny_source("qwen3moe", num_experts_per_tok=1)
    with torch.no_grad():
        for layer in source.model.model.layers:  # one of the first two always scores above 0
            layer.mlp.gate.weight[1] = -layer.mlp.gate.weight[0]
            layer.mlp.gate.weight[2:] = 0
    result = compress(source, Recipe.parse(text), WINDOWS)
    named = [remark for remark in result.remarks if "no calibration token reached it" in remark]
    unseen = {remark.split(":")[0] for remark in named}
    assert unseen == {
        f"model.layers.{block}.mlp.experts.experts.{expert}.{part}_proj"
        for block, expert, part in itertools.product((0, 1), (2, 3), ("gate", "up", "down"))
    }
    for site in result.view.all_sites():
        assert torch.isfinite(result.view.held(site).dense()).all()


def test_no_remark_where_no_data_is_needed():
    assert compress(tiny_source("mixtral"), Recipe.parse("rtn@6"), WINDOWS).remarks == []
