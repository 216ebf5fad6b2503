"""Recipes: every pair that is legal composes, every other is refused, both forms say the same."""

import contextlib
import dataclasses
import functools
import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import methods, search
from backend.compress import compress
from backend.errors import (
    OutOfReachError,
    ParetoscopeError,
    RecipeError,
    SettingError,
    UnknownNameError,
)
from backend.methods.base import CacheMethod, LayerMethod, RepairMethod, ServeMethod
from backend.models import artefact
from backend.recipes import Recipe, digest
from tests import tiny_transformers as tiny
from tests.compressed import WIDTHS, WINDOWS, assert_within, brief, fit_once, made, tiny_source

ALLOCATORS = ("uniform", *search.catalogue())
METHODS = methods.catalogue()


@pytest.fixture(autouse=True, scope="module")
def each_matrix_is_fitted_once():
    with pytest.MonkeyPatch.context() as patch:
        fit_once(patch)
        yield


def shaped(cls):
    """A method at a level that every matrix of the tiny model can be held at."""
    if issubclass(cls, RepairMethod):
        return cls(bits=4.0)
    if "quantise" in cls.__module__:
        return brief(cls().at(8.5))
    return brief(cls(bits=15.2) if "vocab" in cls.__module__ else cls())


def pairs():
    for first, second in itertools.permutations(METHODS.values(), 2):
        try:
            yield Recipe((shaped(first), shaped(second))), first, second
        except RecipeError:
            continue


def named(recipe):
    return " + ".join(stage.key() for stage in recipe.stages)


ADMISSIBLE = [(recipe, named(recipe)) for recipe, _, _ in pairs()]


def serves(stage):
    return isinstance(stage, CacheMethod | ServeMethod)


def together(first, behind):
    """Recipes that hold `first` and all of what only serves it, as much at a time as goes."""
    while behind:
        recipe = Recipe((first,))
        for stage in sorted(behind, key=lambda stage: stage.stage):
            with contextlib.suppress(RecipeError):
                recipe = Recipe((*recipe.stages, stage))
        behind = [stage for stage in behind if stage not in recipe.stages]
        yield recipe


def tried():
    """Every admissible pair; those of weights with what serves them, which leaves weights as they
    are, several in one recipe."""
    behind = {}
    for recipe, _ in ADMISSIBLE:
        first, second = recipe.stages
        if serves(second) and not serves(first):
            behind.setdefault(first, []).append(second)
        else:
            yield recipe
    for first, stages in behind.items():
        yield from together(first, stages)


TRIED = list(tried())


SIZES = {}
"""What `sizes` said of the recipes of two layer methods that were made."""


def sizes(source, result):
    """How wide a model is, and the bytes that each of its matrices takes."""
    held = {site.name: result.view.held(site).nbytes for site in result.view.all_sites()}
    return source.model.config.hidden_size, held


@functools.cache
def alone(method, width):
    source = tiny_source(**{**tiny.WIDE, "hidden_size": width} if width in WIDTHS else {})
    return sizes(source, compress(source, Recipe((method,)), WINDOWS))[1]


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    return tmp_path_factory.mktemp("stacks")


def test_every_admissible_pair_is_in_a_recipe_that_is_tried():
    held = {pair for recipe in TRIED for pair in itertools.combinations(recipe.stages, 2)}
    assert {recipe.stages for recipe, _ in ADMISSIBLE} <= held


@pytest.mark.parametrize("recipe", TRIED, ids=named)
def test_every_admissible_pair_composes(recipe, tmp_path, stacks):
    source, result = made(recipe, tmp_path, stacks)
    if len(recipe.layer_methods) == 2:
        SIZES[recipe] = sizes(source, result)
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


def test_a_second_layer_method_makes_it_smaller(tmp_path, stacks):
    seen = 0
    for recipe, name in ADMISSIBLE:
        if len(recipe.layer_methods) == 2:
            width, both = SIZES.get(recipe) or sizes(*made(recipe, tmp_path / name, stacks))
            one = alone(recipe.layer_methods[0], width)
            assert all(both[site] < one[site] for site in one)
            seen += 1
    assert seen >= 40


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
        ("foo@4", UnknownNameError, r"'foo'\. [0-9]+ others are known\.$"),
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
