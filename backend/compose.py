"""A recipe being put together: its stages with their settings, and what may still be added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend import methods, search
from backend.errors import ParetoscopeError
from backend.methods.base import Method
from backend.recipes import Recipe
from backend.search.base import Allocator
from backend.settings import describe


@dataclass(frozen=True)
class Option:
    """Something that may be added to a recipe, or why it may not.

    Attributes:
        key: of the method or allocator.
        family: of the method.
        stage: of the method.
        summary: what it does.
        recipe: the recipe with it, in the short form; empty where it cannot be.
        reason: why it cannot be; empty where it can.
    """

    key: str
    family: str = ""
    stage: str = ""
    summary: str = ""
    recipe: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Composition:
    """A recipe and where it can go from here.

    Attributes:
        text: the short form.
        family: as runs of it are told by.
        recipe: the long form, as `Recipe.from_json` reads it.
        stages: what each method says of itself, with `value` for each setting and `level`.
        methods: every method not in it.
        division: what divides its budget over layers, told as a stage is; None for all alike.
        allocators: every way to divide it.
    """

    text: str
    family: str
    recipe: dict[str, Any]
    stages: tuple[dict[str, Any], ...]
    methods: tuple[Option, ...]
    division: dict[str, Any] | None
    allocators: tuple[Option, ...]


def compose(recipe: Recipe) -> Composition:
    """Tell what a recipe is made of and which additions are legal."""
    used = {stage.key() for stage in recipe.stages}
    return Composition(
        recipe.text(),
        recipe.family,
        recipe.to_json(),
        tuple(_stage(stage) for stage in recipe.stages),
        tuple(_method(recipe, cls) for key, cls in methods.catalogue().items() if key not in used),
        None
        if recipe.division is None
        else _valued(describe(type(recipe.division)), recipe.division),
        tuple(_allocator(recipe, key) for key in (search.UNIFORM, *search.catalogue())),
    )


def _stage(stage: Method) -> dict[str, Any]:
    level = stage.level if stage.level in stage.settings() else ""
    return _valued(methods.describe(type(stage)), stage) | {"level": level}


def _valued(about: dict[str, Any], one: Method | Allocator) -> dict[str, Any]:
    values = one.settings()
    return about | {
        "settings": [field | {"value": values[field["name"]]} for field in about["settings"]]
    }


def _method(recipe: Recipe, cls: type[Method]) -> Option:
    about = cls.key(), cls.family(), cls.stage.name.lower(), cls.summary()
    try:
        stages = sorted([*recipe.stages, cls()], key=lambda one: one.stage)
        return Option(*about, Recipe(tuple(stages), recipe.allocator).text())
    except ParetoscopeError as error:
        return Option(*about, reason=str(error))


def _allocator(recipe: Recipe, key: str) -> Option:
    divides = recipe.division
    if key == (search.UNIFORM if divides is None else divides.key()):
        return Option(key, recipe=recipe.text())
    try:
        return Option(key, recipe=Recipe(recipe.stages, key).text())
    except ParetoscopeError as error:
        return Option(key, reason=str(error))
