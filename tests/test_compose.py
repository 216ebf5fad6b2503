"""A recipe grows only by what is legal, and what is not says why."""

from __future__ import annotations

import pytest

from backend import methods, search
from backend.compose import compose
from backend.errors import ParetoscopeError
from backend.methods.base import Stage
from backend.recipes import Recipe

ALONE = [key for key, cls in methods.catalogue().items() if cls.stage != Stage.REPAIR]


@pytest.mark.parametrize("text", ["dense", *ALONE, "rtn@4 + eora"])
def test_what_may_be_added_makes_a_recipe_and_what_may_not_says_why(text):
    recipe = Recipe.parse(text)
    found = compose(recipe)
    used = {stage.key() for stage in recipe.stages}
    assert {one.key for one in found.methods} == set(methods.catalogue()) - used
    for one in found.methods:
        assert bool(one.recipe) != bool(one.reason)
        added = [*recipe.stages, methods.find(one.key)()]
        if one.recipe:
            assert {s.key() for s in Recipe.parse(one.recipe).stages} == {s.key() for s in added}
        else:
            for order in (added, added[::-1]):
                with pytest.raises(ParetoscopeError):
                    Recipe(tuple(order))


def test_the_first_stage_may_be_any_method_that_needs_none_before_it():
    found = compose(Recipe(())).methods
    assert [one.key for one in found if one.recipe] == ALONE
    assert all("none comes before it" in one.reason for one in found if not one.recipe)


def test_two_of_one_stage_are_refused_by_name():
    found = {one.key: one for one in compose(Recipe.parse("gptq@4")).methods}
    assert found["rtn"].reason == "gptq and rtn both quantise; a recipe holds one of each stage."
    assert found["kv-int"].recipe == "gptq@4 + kv-int@5"


def test_a_stage_carries_its_settings_with_their_values():
    (stage,) = compose(Recipe.parse("gptq@3")).stages
    values = {one["name"]: one["value"] for one in stage["settings"]}
    assert values == Recipe.parse("gptq@3").stages[0].settings()
    assert stage["level"] == "bits"


def test_a_budget_is_divided_only_where_one_method_treats_layers():
    for text, legal in (("gptq@4", True), ("kv-int@4", False)):
        found = {one.key: one for one in compose(Recipe.parse(text)).allocators}
        assert set(found) == {"uniform", *search.catalogue()}
        assert found["uniform"].recipe
        assert bool(found["evopress"].recipe) is legal
        assert legal or "exactly one method" in found["evopress"].reason


def test_what_divides_a_budget_shows_its_settings_with_their_values():
    assert compose(Recipe.parse("gptq@4")).division is None
    divides = Recipe.parse("gptq@4 by evopress").division
    told = compose(Recipe.parse("gptq@4 by evopress")).division
    assert {one["name"]: one["value"] for one in told["settings"]} == divides.settings()
