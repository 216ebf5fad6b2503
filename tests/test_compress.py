"""Recipes over whole models: resume, remarks, budgets over layers, and what layers share."""

import math

import pytest
import torch

from backend import methods, search
from backend.compress import compress
from backend.errors import OutOfReachError
from backend.methods.base import CacheMethod, DecodeMethod, Leveled, ModelMethod
from backend.models import artefact
from backend.recipes import Recipe
from tests import tiny_transformers as tiny
from tests.compressed import WINDOWS, same, state_of, tiny_source

METHODS = methods.catalogue()


# Resume


class KilledError(Exception):
    """Stands for the end of a process."""


def kill_at(block):
    def progress(stage, done, total):
        if stage == "compress" and done == block:
            raise KilledError

    return progress


@pytest.mark.parametrize("text", ["gptq(bits=5, group_size=32)", "sparsegpt@9 + rtn@5", "lord@12"])
@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_run_that_was_killed_goes_on_to_the_identical_artefact(text, killed_at, tmp_path):
    recipe, checkpoint = Recipe.parse(text), tmp_path / "checkpoint"
    build = lambda: tiny.build("llama", num_hidden_layers=3)  # noqa: E731
    source = tiny.loaded(build(), tmp_path / "dense")
    whole = compress(source, recipe, WINDOWS)
    artefact.save(whole.view, source, recipe, [], tmp_path / "whole")
    again = tiny.loaded(build(), tmp_path / "dense")
    with pytest.raises(KilledError):
        compress(again, recipe, WINDOWS, kill_at(killed_at), checkpoint=checkpoint)
    assert len(list(checkpoint.glob("*.json"))) == killed_at
    done = []
    resumed = tiny.loaded(build(), tmp_path / "dense")
    result = compress(
        resumed, recipe, WINDOWS, lambda *about: done.append(about), checkpoint=checkpoint
    )
    assert same(state_of(result.view), state_of(whole.view))
    artefact.save(result.view, resumed, recipe, [], tmp_path / "resumed")
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "resumed").iterdir())
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (
            tmp_path / "resumed" / name
        ).read_bytes()
    assert not checkpoint.exists()
    assert done[-1] == ("compress", 3, 3)


def test_remarks_survive_a_resume(tmp_path):
    recipe = Recipe.parse("wanda(pattern=2:4)")
    shape = {"intermediate_size": 60}
    whole = compress(tiny.loaded(tiny.build("llama", **shape), tmp_path / "a"), recipe, WINDOWS)
    assert len(whole.remarks) == 2
    assert "mlp.down_proj: 8 does not divide 60 columns" in whole.remarks[0]
    source = tiny.loaded(tiny.build("llama", **shape), tmp_path / "b")
    with pytest.raises(KilledError):
        compress(source, recipe, WINDOWS, kill_at(1), checkpoint=tmp_path / "checkpoint")
    source = tiny.loaded(tiny.build("llama", **shape), tmp_path / "b")
    result = compress(source, recipe, WINDOWS, checkpoint=tmp_path / "checkpoint")
    assert result.remarks == whole.remarks


def test_a_checkpoint_of_other_work_is_not_taken_up(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    source = tiny.loaded(tiny.build("llama"), tmp_path / "dense")
    with pytest.raises(KilledError):
        compress(source, Recipe.parse("rtn@5"), WINDOWS, kill_at(1), checkpoint=checkpoint)
    (checkpoint / "0.partial").write_text("{")
    other = Recipe.parse("gptq(bits=6, group_size=32)")
    expected = compress(tiny.loaded(tiny.build("llama"), tmp_path / "c"), other, WINDOWS)
    source = tiny.loaded(tiny.build("llama"), tmp_path / "dense")
    found = compress(source, other, WINDOWS, checkpoint=checkpoint)
    assert same(state_of(found.view), state_of(expected.view))


def test_a_checkpoint_on_other_text_is_not_taken_up(tmp_path):
    recipe, checkpoint = Recipe.parse("gptq(bits=6, group_size=32)"), tmp_path / "checkpoint"
    with pytest.raises(KilledError):
        compress(
            tiny_source(), recipe, tiny.tokens(4, 16, seed=8), kill_at(1), checkpoint=checkpoint
        )
    found = compress(tiny_source(), recipe, WINDOWS, checkpoint=checkpoint)
    assert same(state_of(found.view), state_of(compress(tiny_source(), recipe, WINDOWS).view))


def test_a_checkpoint_of_the_other_kind_of_statistics_is_not_taken_up(tmp_path):
    recipe, checkpoint = Recipe.parse("gptq(bits=3.5, group_size=0)"), tmp_path / "checkpoint"
    with pytest.raises(KilledError):
        compress(tiny_source(), recipe, WINDOWS, kill_at(1), checkpoint=checkpoint)
    found = compress(tiny_source(), recipe, WINDOWS, checkpoint=checkpoint, parallel=True)
    whole = compress(tiny_source(), recipe, WINDOWS, parallel=True)
    assert same(state_of(found.view), state_of(whole.view))


# Budgets over layers


@pytest.mark.parametrize("allocator", search.catalogue())
@pytest.mark.parametrize("text", ["gptq(bits=5, group_size=32)", "wanda@9", "svd@9"])
def test_a_divided_budget_is_kept_and_used_and_no_worse(text, allocator):
    def measure(allocator):
        source = tiny_source()
        dense = source.model(input_ids=WINDOWS).logits.log_softmax(-1)
        recipe = Recipe(Recipe.parse(text).stages, allocator)
        view = compress(source, recipe, WINDOWS).view
        logits = source.model(input_ids=WINDOWS).logits.log_softmax(-1)
        size = sum(view.held(site).nbytes for site in view.all_sites())
        numbers = sum(math.prod(view.held(site).shape) for site in view.all_sites())
        return float((dense.exp() * (dense - logits)).sum(-1).mean()), 8 * size / numbers

    even, spread = measure("uniform"), measure(allocator)
    bits = Recipe.parse(text).stages[0].bits
    assert 0.9 * bits <= spread[1] <= bits
    if allocator != "layerwise":  # which ranks layers without ever looking at a loss
        assert spread[0] <= 1.05 * even[0]


def test_a_table_of_levels_serves_the_next_budget_without_fitting_again(tmp_path, monkeypatch):
    folders = {"statistics": tmp_path / "statistics" / "key", "levels": tmp_path / "levels"}
    first = Recipe.parse("rtn(bits=5, group_size=32) by integer-program")
    compress(tiny_source(), first, WINDOWS, **folders)
    monkeypatch.setattr(type(first.stages[0]), "fit", lambda *_: pytest.fail("fitted again"))
    second = Recipe.parse("rtn(bits=6, group_size=32) by integer-program")
    source = tiny_source()
    view = compress(source, second, WINDOWS, **folders).view
    held = [view.held(site) for site in view.all_sites()]
    assert 8 * sum(one.nbytes for one in held) <= 6 * sum(math.prod(one.shape) for one in held)
    assert len(list((tmp_path / "levels").iterdir())) == 1


def test_a_budget_below_every_level_is_refused_with_what_would_do():
    recipe = Recipe.parse("gptq(bits=1.3, group_size=32) by evopress")
    with pytest.raises(OutOfReachError, match="lowest level take"):
        compress(tiny_source(), recipe, WINDOWS)


def test_the_dense_weights_come_back_when_a_search_is_broken_off(monkeypatch):
    source = tiny_source()
    before = {name: tensor.clone() for name, tensor in source.model.state_dict().items()}

    def stop(stage, done, total):
        if stage == "evopress":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(source, Recipe.parse("wanda@9 by evopress"), WINDOWS, stop)
    after = source.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_levels_that_small_matrices_cannot_be_held_at_are_left_out():
    """Two bits take more than 4.5 with groups of 32 and short rows; the levels above serve."""
    recipe = Recipe.parse("gptq(bits=4.5, group_size=32) by evopress")
    view = compress(tiny_source(hidden_size=24, head_dim=6), recipe, WINDOWS).view
    assert all(view.held(site) is not None for site in view.all_sites())


def test_every_kind_of_method_says_whether_it_changes_weights():
    """Stages of cache and decoding leave the model as it is."""
    kinds = (CacheMethod, DecodeMethod)
    stages = tuple(
        sorted((cls() for cls in METHODS.values() if issubclass(cls, kinds)), key=lambda s: s.stage)
    )
    source = tiny_source()
    before = {name: tensor.clone() for name, tensor in source.model.state_dict().items()}
    result = compress(source, Recipe(stages[:1]), WINDOWS)
    after = source.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not result.structure
    assert all(isinstance(s, Leveled | DecodeMethod | ModelMethod) for s in stages)
