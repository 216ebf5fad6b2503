"""Which recipes a sweep of methods and budgets stands for; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from backend import methods
from backend.errors import ParetoscopeError, RecipeError
from backend.jobs.records import Submission
from backend.methods.base import ServeMethod
from backend.recipes import Recipe


@dataclass(frozen=True)
class Refusal:
    """A recipe that a sweep left out, and why."""

    recipe: str
    reason: str


@dataclass(frozen=True)
class Sweep:
    """Jobs of a sweep: one for each method and budget, and those that cannot be."""

    submissions: tuple[Submission, ...]
    recipes: tuple[str, ...]
    refusals: tuple[Refusal, ...]


def points(
    keys: Sequence[str], budgets: Sequence[float]
) -> tuple[dict[str, dict[str, float]], list[Refusal]]:
    """Recipes with their budgets, the dense model first, and those that cannot be.

    All methods come at one budget before the next, so that every family is soon on the chart.
    Drafting holds nothing in fewer bits, so a drafter comes once.

    Raises:
        ParetoscopeError: a method does not exist, or nothing at all can be run.
    """
    wanted: dict[str, dict[str, float]] = {"dense": {}}
    refusals: list[Refusal] = []
    chosen = [methods.find(key)() for key in keys]
    for bits, method in product(budgets, chosen):
        if isinstance(method, ServeMethod):
            wanted.setdefault(Recipe((method,)).text(), {})
            continue
        try:
            wanted.setdefault(Recipe((method.at(bits),)).text(), {"bits": bits})
        except ParetoscopeError as error:
            refusals.append(Refusal(f"{method.key()}@{bits:g}", str(error)))
    if len(wanted) == 1 and refusals:
        raise RecipeError(f"None of these can be run. {refusals[0].reason}")
    return wanted, refusals
