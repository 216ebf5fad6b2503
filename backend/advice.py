"""What is answered from what is known, before or instead of running anything; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from backend.budget import Budget, fit
from backend.compose import Composition, compose
from backend.dimensions import Dimensions
from backend.estimate import Estimate, estimate
from backend.forecast import METRIC, Forecaster
from backend.recipes import Recipe
from backend.sources import ModelSource
from backend.store.store import Store

KNOWN_RUNS = 2000  # newest runs that estimates rest on


@dataclass(frozen=True)
class Fitted:
    """A recipe turned to a budget.

    Attributes:
        recipe: in the short form; the nearest there is where the budget cannot be met.
        nbytes: what counts against the budget: weights, and cache and buffers at its context.
        kind: whether those bytes are counted or estimated.
        missing: bytes over the budget; 0 where it is kept.
        strange: nats over the divergence asked for, as expected; 0 where it is kept.
        budget: the limits as read.
    """

    recipe: str
    nbytes: int
    kind: str
    missing: int
    strange: float
    budget: dict[str, float]


class Advice:
    """Estimates, fits and recommendations over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._learned: tuple[int, pd.DataFrame, Forecaster] | None = None

    def estimate(self, recipe: Recipe, source: ModelSource) -> Estimate | None:
        """What a run will take; None for a model whose files are not here yet."""
        return estimate(recipe, source, *self._known())

    def compose(self, recipe: str | dict[str, Any]) -> Composition:
        """A recipe in either form, with its stages, their settings and what may be added.

        Raises:
            ParetoscopeError: it cannot be.
        """
        read = Recipe.parse if isinstance(recipe, str) else Recipe.from_json
        return compose(read(recipe))

    def fit(self, recipe: str, budget: str, model: str = "default") -> Fitted | None:
        """The recipe turned to a budget such as `6 GB, 8k context x 1` or `kld <= 0.05`.

        What cannot be met comes as the nearest that can, with by how much it misses. None for
        a model whose files are not here yet.

        Raises:
            ParetoscopeError: recipe, budget or model cannot be.
        """
        source, limits = ModelSource.parse(model), Budget.parse(budget)
        dimensions = Dimensions.of(source)
        if dimensions is None:
            return None
        _, forecaster = self._known()

        def divergence(one: Recipe) -> float | None:
            found = forecaster.quality(one, source.name)
            return None if found is None else found.value

        found = fit(Recipe.parse(recipe), limits, dimensions, divergence)
        return Fitted(
            found.recipe.text(),
            found.nbytes,
            "counted" if found.size.exact and not limits.context else "estimated",
            found.missing,
            found.strange,
            limits.to_json(),
        )

    def _known(self) -> tuple[pd.DataFrame, Forecaster]:
        """What estimates rest on, learned anew when there are more results."""
        count = self._store.results.count()
        if self._learned is None or self._learned[0] != count:
            known = self._store.results.runs(metrics=(METRIC,)).head(KNOWN_RUNS)
            self._learned = count, known, Forecaster.of(known)
        return self._learned[1:]
