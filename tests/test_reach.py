"""What cannot be held is refused before anything is loaded, and nothing else is."""

import re

import pytest
import torch

from backend.calibrate.walk import Walk
from backend.compress import compress
from backend.dimensions import Dimensions
from backend.errors import ModelError, OutOfReachError
from backend.methods import catalogue
from backend.methods.base import CacheMethod, ModelMethod
from backend.models import units
from backend.models.load import load
from backend.models.observing import codec_of
from backend.models.view import View
from backend.recipes import Recipe
from backend.service import Service
from backend.sizes import size_of
from backend.sources import ModelSource
from tests import tiny_transformers as tiny

MODEL = [key for key, cls in catalogue().items() if issubclass(cls, ModelMethod)]
CACHE = [key for key, cls in catalogue().items() if issubclass(cls, CacheMethod)]
DEFAULT = ModelSource.parse("default")
WINDOWS = tiny.tokens(4, 24)


def refusal(act):
    """What an attempt is refused with; empty where it is not."""
    try:
        act()
    except (OutOfReachError, ModelError) as error:
        return str(error)
    return ""


def said(recipe, dimensions):
    return refusal(lambda: size_of(recipe, dimensions))


def reach_of(told):
    """The smallest budget that a refusal names."""
    return float(re.search(r"ask for (\d+\.\d\d)", told)[1])


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """Dimensions of a tiny model of each family, from its files."""
    found = {}
    for family in tiny.CONFIGS:
        folder = tmp_path_factory.mktemp(family)
        found[family] = Dimensions.of(tiny.save(tiny.build(family), folder))
    return found


@pytest.mark.parametrize("family", tiny.CONFIGS)
def test_files_and_memory_tell_of_the_same_blocks_heads_neurons_and_tables(family, families):
    files, view = families[family].anatomy, View(tiny.build(family))
    memory = view.anatomy()
    assert files.numbers == memory.numbers == view.numbers
    assert files.block_numbers == memory.block_numbers
    assert sorted(files.tables) == sorted(memory.tables)
    assert len(files.tables) == (1 if view.head.weight is view.embedding.weight else 2)
    assert files.kind == memory.kind
    groups, _ = units.find(view)
    expected = sorted((one.units, one.cost, one.bias) for one in groups)
    for anatomy in (files, memory):
        assert sorted((one.count, one.cost, one.bias) for one in anatomy.units) == expected


def around(key, dimensions):
    """A method on both sides of the smallest budget that is said to be in reach, and above all."""
    cls = catalogue()[key]
    told = said(Recipe((cls().at(1.0),)), dimensions)
    near = [reach_of(told) - 0.01, reach_of(told)] if "ask for" in told else []
    return [cls().at(round(bits, 2)) for bits in (1.0, *near, 16.0)]


@pytest.mark.parametrize("family", tiny.CONFIGS)
@pytest.mark.parametrize("key", MODEL)
def test_a_model_is_refused_beforehand_exactly_where_it_is_refused_at_work(key, family, families):
    outcomes = []
    for method in around(key, families[family]):
        model = tiny.build(family)
        walk, whole = Walk(View(model), WINDOWS), families[family].parameters
        told = refusal(lambda one=method, on=walk: one.rewrite(on))
        assert said(Recipe((method,)), families[family]) == told
        outcomes.append(bool(told))
        if not told:
            assert View(model).numbers <= method.bits / 16 * whole
    assert outcomes in ([True, True, False, False], [False, False], [True, True])


@pytest.mark.parametrize("key", MODEL)
def test_the_embedded_model_is_refused_beforehand_exactly_where_it_is_at_work(key):
    dimensions, outcomes = Dimensions.of(DEFAULT), []
    for method in around(key, dimensions)[:3]:
        walk = Walk(View(load(DEFAULT, torch.float32).model), torch.arange(64).view(2, 32))
        told = refusal(lambda one=method, on=walk: one.rewrite(on))
        assert said(Recipe((method,)), dimensions) == told
        outcomes.append(bool(told))
    assert outcomes in ([True, True, False], [False, False])


@pytest.mark.parametrize("key", CACHE)
def test_a_cache_is_refused_beforehand_exactly_where_it_is_refused_at_work(key, families):
    cls = catalogue()[key]
    for dimensions, model in (
        (families["llama"], tiny.build("llama")),
        (families["qwen3"], tiny.build("qwen3")),
        (Dimensions.of(DEFAULT), load(DEFAULT, torch.float32).model),
    ):
        named = set()
        for step in range(16 * 20):
            try:
                recipe = Recipe((cls().at(step / 20),))
            except OutOfReachError:
                continue
            told = said(recipe, dimensions)
            assert told == refusal(lambda r=recipe, m=model: codec_of(r, m))
            if told:
                named.add(reach_of(told))
                assert not said(Recipe((cls().at(reach_of(told)),)), dimensions)
                assert step / 20 < reach_of(told)
        assert len(named) <= 1, "one smallest budget, whatever is asked for"


@pytest.mark.parametrize(
    ("text", "budgets"),
    [
        ("bitstack(bits={}, blocks=1)", (1.2, 2.9, 3.9)),
        ("gptq(bits={}, group_size=32) by integer-program", (1.9, 2.2, 2.3)),
        ("svd@{} by integer-program", (0.5, 1.2, 1.4)),
        ("rtn@4 + eora@{}", (0.5, 1.4, 1.6)),
        ("lord@{} + rtn@6", (1.2, 6.0, 14.0)),
    ],
)
def test_matrices_are_refused_beforehand_exactly_where_they_are_at_work(text, budgets, families):
    found = []
    for bits in budgets:
        recipe, source = Recipe.parse(text.format(bits)), tiny.loaded_here(tiny.build("llama"))
        told = refusal(lambda one=recipe, on=source: compress(on, one, WINDOWS))
        assert bool(said(recipe, families["llama"])) == bool(told)
        found.append(bool(told))
    assert found == sorted(found, reverse=True)
    assert found[0]
    assert not found[-1]


def test_a_model_of_another_type_is_refused_beforehand(families):
    assert "not gpt2" in said(Recipe.parse("slicegpt@12"), families["gpt2"])


def test_submitting_refuses_and_a_sweep_goes_on_without(tmp_path, monkeypatch):
    monkeypatch.setattr("backend.service.FIRST_RESULTS", tmp_path)
    with Service(tmp_path, run_jobs=False) as service:
        with pytest.raises(OutOfReachError, match=r"flap holds .* ask for \d+\.\d\d or more"):
            service.submit("flap@2")
        with pytest.raises(OutOfReachError, match=r"gear holds .* ask for \d\.\d\d or more"):
            service.submit("gear@2.5")
        sweep = service.sweep(["rtn", "layer-drop", "zipcache"], [2.5])
        assert sweep.recipes == ("dense", "rtn@2.5")
        assert len(sweep.submissions) == 2
        assert [one.recipe for one in sweep.refusals] == ["layer-drop@2.5", "zipcache@2.5"]
        assert all("ask for" in one.reason for one in sweep.refusals)
