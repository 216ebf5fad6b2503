"""Recipes over whole models: order, resume, remarks, composition, and what layers share."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import methods, search
from backend.calibrate import walk as walking
from backend.calibrate.walk import Walk
from backend.compress import compress
from backend.errors import (
    OutOfReachError,
    ParetoscopeError,
    RecipeError,
    SettingError,
    UnknownNameError,
)
from backend.methods.base import (
    CacheMethod,
    DecodeMethod,
    LayerMethod,
    Leveled,
    ModelMethod,
    Needs,
    RankingMethod,
    RepairMethod,
    StackMethod,
)
from backend.models import artefact
from backend.models.load import LoadedModel
from backend.models.view import View
from backend.recipes import Recipe, digest
from backend.sources import ModelSource
from tests import tiny_transformers as tiny

ALLOCATORS = ("uniform", *search.catalogue())
METHODS = methods.catalogue()
WINDOWS = tiny.tokens(4, 16)


def state_of(view):
    return {
        site.name: (view.held(site).header(), view.held(site).dense()) for site in view.all_sites()
    }


def same(a, b):
    return a.keys() == b.keys() and all(
        a[name][0] == b[name][0] and torch.equal(a[name][1], b[name][1]) for name in a
    )


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


# The walk


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


def tiny_source(family="llama", **changes):
    return LoadedModel(tiny.build(family, **changes), None, ModelSource(family), Path(), 0)


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


# Recipes


def shaped(cls):
    """A method at a level that every matrix of the tiny model can be held at."""
    if issubclass(cls, RepairMethod):
        return cls(bits=4.0)
    if "quantise" in cls.__module__:
        return cls().at(8.5)
    return cls(bits=15.2) if "vocab" in cls.__module__ else cls()


def pairs():
    for first, second in itertools.permutations(METHODS.values(), 2):
        try:
            yield Recipe((shaped(first), shaped(second))), first, second
        except RecipeError:
            continue


ADMISSIBLE = [(recipe, f"{first.key()} + {second.key()}") for recipe, first, second in pairs()]


WIDTHS = 192, 384
"""Where the matrices of the tiny model are too narrow for what a method holds beside each row."""


def made(recipe, folder):
    """A tiny model and what a recipe makes of it; a wider one where it must be."""
    for width in (None, *WIDTHS):
        changes = {} if width is None else {**tiny.WIDE, "hidden_size": width}
        source = tiny.loaded(tiny.build("llama", **changes), folder / f"dense{width}")
        try:
            return source, compress(source, recipe, WINDOWS)
        except OutOfReachError:
            if width == WIDTHS[-1]:
                raise
    raise AssertionError


@pytest.mark.parametrize("recipe", [r for r, _ in ADMISSIBLE], ids=[name for _, name in ADMISSIBLE])
def test_every_admissible_pair_composes(recipe, tmp_path):
    source, result = made(recipe, tmp_path)
    tokens = tiny.tokens()
    expected = source.model(input_ids=tokens).logits
    assert torch.isfinite(expected).all()
    if recipe.layer_methods:
        assert all(result.view.held(site) is not None for site in result.view.all_sites())
        limit = max(stage.bits for stage in recipe.layer_methods)
        limit += sum(stage.bits for stage in recipe.stages if isinstance(stage, RepairMethod))
        assert_within(result.view, recipe, limit)
    artefact.save(result.view, source, recipe, result.structure, tmp_path / "artefact")
    found = artefact.load(tmp_path / "artefact", packed=False)
    assert found.recipe == recipe
    assert torch.equal(found.loaded.model(input_ids=tokens).logits, expected)


def assert_within(view, recipe, limit):
    """Every matrix keeps the budget, or all together where bits go to those that need them."""
    held = [view.held(site) for site in view.all_sites()]
    if any(isinstance(stage, StackMethod | RankingMethod) for stage in recipe.stages):
        numbers = sum(math.prod(one.shape) for one in held)
        assert 8 * sum(one.nbytes for one in held) <= limit * numbers
    else:
        assert all(one.bits <= limit for one in held)


def test_a_second_layer_method_makes_it_smaller(tmp_path):
    for recipe, name in ADMISSIBLE:
        if len(recipe.layer_methods) == 2:
            source, result = made(recipe, tmp_path / name)
            both, width = result.view, source.model.config.hidden_size
            alone = tiny_source(**{**tiny.WIDE, "hidden_size": width} if width in WIDTHS else {})
            one = compress(alone, Recipe(recipe.layer_methods[:1]), WINDOWS).view
            for site in both.all_sites():
                assert both.held(site).nbytes < one.held(site).nbytes


def test_pairs_that_cannot_follow_each_other_are_refused_in_a_sentence():
    admissible = {name for _, name in ADMISSIBLE}
    refused = 0
    for first, second in itertools.product(METHODS.values(), repeat=2):
        if f"{first.key()} + {second.key()}" in admissible:
            continue
        with pytest.raises(RecipeError, match=rf"({first.key()}|{second.key()}).*\.$"):
            Recipe((shaped(first), shaped(second)))
        refused += 1
    assert refused == len(METHODS) ** 2 - len(admissible)
    assert admissible


def values_of(field):
    about = field.metadata
    if about["recipe"]:
        drafts = "rtn@3", "lord@8 + gptq(bits=3, group_size=32)", "gptq(bits=4) by evopress"
        return st.sampled_from(drafts)
    if about["choices"] is not None:
        return st.sampled_from(about["choices"])
    if isinstance(field.default, int):
        return st.integers(int(about["low"]), int(about["high"]))
    return st.floats(about["low"], about["high"], allow_nan=False)


@st.composite
def one_stage(draw, cls):
    chosen = {field.name: draw(values_of(field)) for field in dataclasses.fields(cls)}
    if "pattern" in chosen and chosen["pattern"] != "unstructured":
        chosen["bits"] = max(chosen["bits"], 9.0)
    return cls(**chosen)


@st.composite
def recipes(draw):
    chosen = draw(st.lists(st.sampled_from(list(METHODS.values())), unique=True, max_size=4))
    stages = []
    for cls in sorted(chosen, key=lambda cls: cls.stage):
        stage = draw(one_stage(cls))
        try:
            Recipe((*stages, stage))
        except RecipeError:
            continue
        stages.append(stage)
    one = sum(isinstance(stage, LayerMethod) for stage in stages) == 1
    return Recipe(tuple(stages), draw(st.sampled_from(ALLOCATORS)) if one else "uniform")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(recipes())
def test_a_recipe_survives_both_of_its_forms(recipe):
    assert Recipe.parse(recipe.text()) == recipe
    long = json.loads(json.dumps(recipe.to_json()))
    assert Recipe.from_json(long) == recipe
    assert digest(Recipe.parse(recipe.text()).to_json()) == digest(recipe.to_json())
    assert Recipe.parse(f"  {recipe.text()} ") == recipe


@pytest.mark.parametrize(
    ("a", "b"),
    [("rtn(bits=4)", "rtn@4"), ("rtn(bits=4.0)", "rtn@4.00"), ("dense", ""), ("gptq", "gptq()")],
)
def test_two_ways_to_write_a_recipe_are_one_run(a, b):
    assert digest(Recipe.parse(a).to_json()) == digest(Recipe.parse(b).to_json())


def test_numbers_that_a_page_sends_as_the_other_kind_mean_the_same():
    for cls in METHODS.values():
        other = {
            name: float(value) if type(value) is int else value
            for name, value in cls().settings().items()
        }
        assert repr(cls.make(other)) == repr(cls())


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("gptq@4 + gptq@3", RecipeError, "both quantise"),
        ("rtn@4 + wanda@9", RecipeError, "put it first"),
        ("gtpq@4", UnknownNameError, "Did you mean gptq"),
        ("gptq@four", RecipeError, "no stage"),
        ("gptq@4.4.4", RecipeError, "no number"),
        ("gptq@", RecipeError, "no stage"),
        ("gptq@0.1", OutOfReachError, "1.25 to 9"),
        ("gptq(bits=4", RecipeError, "no stage"),
        ("gptq(bits)", SettingError, "write name=value"),
        ("gptq(bit=4)", SettingError, "Did you mean bits"),
        ("gptq(bits=many)", SettingError, "lies in"),
        ("gptq(symmetric=1)", SettingError, "False, True"),
        ("gptq@4 by luck", UnknownNameError, "uniform, evopress"),
        ("gptq@4 by evopress@3", RecipeError, "divides no budget"),
        ("gptq@4 by layerwise(score=taste)", SettingError, "input, outliers"),
        ("gptq@4 by evopress(generation=3)", SettingError, "Did you mean generations"),
        ("wanda@9 + rtn@4 by evopress", RecipeError, "exactly one"),
        ("kv-int@4 by evopress", RecipeError, "exactly one"),
        ("wanda@9 + lord@4", RecipeError, "lord takes dense"),
        ("eora@1", RecipeError, "none comes before it"),
        (" + ", RecipeError, "no stage"),
        ("gptq@4 +", RecipeError, "no stage"),
        ("gptq(bits=__import__('os').getcwd())", SettingError, "lies in"),
    ],
)
def test_an_illegal_recipe_is_refused(text, error, match):
    with pytest.raises(error, match=match):
        Recipe.parse(text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(alphabet="gptqrkvint-@+(),=. 0123456789byevosw", max_size=40))
def test_any_text_is_a_recipe_or_is_refused_in_words(text):
    try:
        recipe = Recipe.parse(text)
    except ParetoscopeError as error:
        assert str(error)  # noqa: PT017
        return
    assert Recipe.parse(recipe.text()) == recipe


@pytest.mark.parametrize(
    "data",
    [{}, {"stages": [{}]}, {"stages": [{"method": "rtn"}]}, {"stages": 3}, [], None,
     {"stages": [{"method": "rtn", "settings": {"bits": "4"}}]},
     {"stages": [{"method": "rtn", "settings": [1]}]},
     {"stages": [{"method": ["rtn"], "settings": {}}]},
     {"stages": [], "allocator": "luck"}],
)  # fmt: skip
def test_a_long_form_that_is_none_is_refused_in_words(data):
    with pytest.raises(ParetoscopeError):
        Recipe.from_json(data)


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
