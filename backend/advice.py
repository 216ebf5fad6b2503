"""What is answered from what is known, before or instead of running anything; imports no torch."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from backend import methods, standing
from backend.budget import Budget, fit
from backend.compose import Composition, compose
from backend.dimensions import Dimensions
from backend.errors import ModelError, OutOfReachError, UnknownNameError
from backend.estimate import Estimate, estimate
from backend.forecast import METRIC, Forecast, Forecaster
from backend.measure.recommend import (
    HELD,
    Candidate,
    Limit,
    Recommendation,
    Value,
    recommend,
)
from backend.recipes import Recipe
from backend.sizes import size_of
from backend.sources import ModelSource, folder_of
from backend.standing import Summary
from backend.store.remembered import Remembered
from backend.store.results import EVERYTHING, Filter
from backend.store.store import Store
from backend.sweeps import points

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


GRADED = {
    "predicted_resident_bytes": "resident_bytes",
    "predicted_compress_peak": "compress_peak",
    "predicted_kld_mean": "kld_mean",
}
"""What was expected, and the reading that grades it; `predicted_seconds` by the run's own."""


class Advice:
    """Estimates, fits, recommendations and standings over one store.

    A model may be a folder of this machine where `folders` says so.
    """

    def __init__(self, store: Store, *, folders: bool = True) -> None:
        self._store, self._folders = store, folders
        self._sums = functools.lru_cache(maxsize=4096)(self._sums_of)
        self._judged = Remembered(self._known_runs, self._judge)
        self._summed = Remembered(self._known_runs, self._summarise)
        self._learned: tuple[Hashable, pd.DataFrame, Forecaster] | None = None

    def source(self, model: str) -> ModelSource:
        """The model that a text means, which may be the name that known runs of a folder go by.

        Raises:
            ModelError: the text names none.
        """
        try:
            return ModelSource.parse(model, folders=self._folders)
        except ModelError:
            known = self._store.results.runs(Filter((model.strip(),)))
            if known.empty:
                raise
            places = map(self._place_of, known.drop_duplicates("hardware_id")["run_id"])
            return ModelSource(model.strip(), next(filter(None, places), None))

    def _place_of(self, run_id: str) -> Path | None:
        """The folder that the model of a run was in, if it is here; other machines have others."""
        run = self._store.results.run(run_id) if self._folders else None
        place = "" if run is None else str(run.model.get("source", ""))
        return None if place in ("hub", "embedded") else folder_of(place)

    def named(self, model: str) -> str:
        """The name that runs of a model go by.

        Raises:
            ModelError: the text names none.
        """
        return self.source(model).name

    def estimate(self, recipe: Recipe, source: ModelSource) -> Estimate | None:
        """What a run will take; None for a model whose files are not here yet."""
        return estimate(recipe, source, *self._known())

    def quality(self, recipe: Recipe, model: str) -> Forecast | None:
        """The divergence to expect of a recipe; None where nothing like it was ever run."""
        return self._known()[1].quality(recipe, self.named(model))

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
        source, limits = self.source(model), Budget.parse(budget)
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

    def expected(
        self, model: str = "default", budgets: Sequence[float] = (2, 3, 4, 5, 6, 8)
    ) -> pd.DataFrame:
        """Every method at every budget before anything runs: recipe, family, bytes, divergence.

        Columns: recipe, family, resident_bytes, exact, kld_mean, kld_low, kld_high, basis. What
        nothing is known of is left out, and so is all of a model whose files are not here.

        Raises:
            ParetoscopeError: the model cannot be.
        """
        source = self.source(model)
        dimensions = Dimensions.of(source)
        _, forecaster = self._known()
        rows: list[dict[str, Any]] = []
        if dimensions is None:
            return pd.DataFrame(rows)
        for text in points(list(methods.catalogue()), budgets)[0]:
            recipe = Recipe.parse(text)
            try:
                size = size_of(recipe, dimensions)
            except (OutOfReachError, ModelError):  # this model is not for it, or not so low
                continue
            quality = forecaster.quality(recipe, source.name)
            if quality is None or quality.value <= 0:
                continue
            rows.append(
                {
                    "recipe": text,
                    "family": recipe.family,
                    "resident_bytes": size.weights,
                    "exact": size.exact,
                    "kld_mean": quality.value,
                    "kld_low": quality.low,
                    "kld_high": quality.high,
                    "basis": quality.basis,
                }
            )
        return pd.DataFrame(rows)

    def grades(self, run_ids: Sequence[str] = ()) -> pd.DataFrame:
        """What was expected of runs, of all if none is named, beside what was measured.

        Columns: run_id, recipe, model, quantity, expected, low, high, measured, and `error`, the
        share by which the expectation was off, positive where it was too high.
        """
        runs = self._store.results.runs().set_index("run_id")
        long = self._store.results.readings(run_ids)
        told = long[long["name"].isin([*GRADED, "predicted_seconds"])]
        measured = long[long["name"].isin(GRADED.values())].set_index(["run_id", "name"])["value"]
        rows = told.assign(
            quantity=told["name"].map({**GRADED, "predicted_seconds": "seconds"}),
            recipe=told["run_id"].map(runs["recipe"]),
            model=told["run_id"].map(runs["model"]),
        ).rename(columns={"value": "expected"})
        keys = list(zip(rows["run_id"], rows["quantity"], strict=True))
        rows["measured"] = [
            runs["seconds"].get(run_id) if name == "seconds" else measured.get((run_id, name))
            for run_id, name in keys
        ]
        rows = rows.dropna(subset=["measured"])
        rows["error"] = rows["expected"] / rows["measured"].where(rows["measured"] != 0) - 1
        columns = ["run_id", "recipe", "model", "quantity", "expected", "low", "high"]
        return rows[[*columns, "measured", "error"]].reset_index(drop=True)

    def standing(
        self, x: str = "resident_bytes", y: str = METRIC, chosen: Filter = EVERYTHING
    ) -> pd.DataFrame:
        """The frontier with `p_front`, the probability of standing on it, and `tied`."""
        return self._judged(x, y, chosen).copy()

    def summary(self, chosen: Filter = EVERYTHING) -> Summary | None:
        """Hypervolume and knee of bytes against divergence, of the group with the most runs."""
        return self._summed(chosen)

    def _known_runs(self) -> Hashable:
        """Stands for the runs that are stored; all that rests on them follows."""
        return self._store.results.version()[0]

    def _judge(self, x: str, y: str, chosen: Filter) -> pd.DataFrame:
        frame = self._store.frontier(x, y, chosen)
        return standing.judge(frame, x, y, self._sums)

    def _summarise(self, chosen: Filter) -> Summary | None:
        frame = _largest(self._store.frontier("resident_bytes", METRIC, chosen))
        dense = frame[frame["family"] == "dense"]
        if not len(dense):
            return None
        run = self._store.results.run(str(dense["run_id"].iloc[0]))
        if run is None:
            return None
        floor = run.reading("kld_floor")
        return standing.summarise(
            frame,
            self._sums,
            parameters=int(run.model["parameters"]),
            dense_bytes=float(dense["x"].iloc[0]),
            floor=0.0 if floor is None or floor.value is None else floor.value,
        )

    def recommend(
        self, budget: str, model: str = "default", chosen: Filter = EVERYTHING
    ) -> Recommendation:
        """The best measured runs of a model within a budget, with reasons.

        Of runs under several protocols or on several machines, the group with the most counts.

        Raises:
            ParetoscopeError: budget or model cannot be, or no run of the model is known.
        """
        limits, source = Budget.parse(budget), self.source(model)
        sides = (chosen.protocols, chosen.hardware, chosen.families)
        only = Filter((source.name,), *sides)
        frame = _largest(self._store.frontier("resident_bytes", METRIC, only))
        if not len(frame):
            raise UnknownNameError(
                f"No run of {source.name} is known yet; sweep a few methods first."
            )
        frame = frame[frame["status"] == "done"]
        found = self._candidates(frame, limits, Dimensions.of(source))
        smallest = limits.limits_quality and not limits.limits_size
        return recommend(found, limits_of(limits), smallest=smallest)

    def _candidates(
        self, frame: pd.DataFrame, budget: Budget, dimensions: Dimensions | None
    ) -> list[Candidate]:
        """Runs with all their readings, and with what they hold at the budget's context."""
        readings = self._store.results.readings(list(frame["run_id"]))
        recipes = dict(zip(frame["run_id"], frame["recipe"], strict=True))
        found = []
        for run_id, rows in readings.groupby("run_id"):
            values = {
                row.name: Value(row.value, _end(row.low), _end(row.high))
                for row in rows.itertuples(index=False)
                if np.isfinite(row.value)
            }
            if budget.context and dimensions is not None:
                values |= _held(values, budget, dimensions)
            text = recipes[run_id]
            found.append(Candidate(str(run_id), text, text.count(" + ") + 1, values))
        return found

    def _sums_of(self, run_id: str) -> Mapping[str, NDArray[np.float64]]:
        run = self._store.results.run(run_id)
        # As arrays: of thousands of runs, lists of numbers would take four times the memory.
        return {} if run is None else {k: np.asarray(v) for k, v in run.documents.items()}

    def _known(self) -> tuple[pd.DataFrame, Forecaster]:
        """What estimates rest on, learned anew when there are more results."""
        runs = self._known_runs()
        if self._learned is None or self._learned[0] != runs:
            known = self._store.results.runs(metrics=(METRIC,)).head(KNOWN_RUNS)
            self._learned = runs, known, Forecaster.of(known)
        return self._learned[1:]


def limits_of(budget: Budget) -> list[Limit]:
    """The limits of a budget on readings."""
    size = HELD if budget.context else "resident_bytes"
    rows: list[tuple[str, str, float]] = [
        ("bpw_linear", "most", budget.bits),
        (size, "most", budget.nbytes),
        (METRIC, "most", budget.kld),
        ("ppl_ratio", "most", budget.perplexity_ratio),
        ("decode_speedup", "least", budget.decode_speedup),
        ("decode_tps", "least", budget.decode_tps),
    ]
    return [
        Limit(name, "most" if side == "most" else "least", bound)
        for name, side, bound in rows
        if bound
    ]


def _held(values: Mapping[str, Value], budget: Budget, dimensions: Dimensions) -> dict[str, Value]:
    wanted = ("resident_bytes", "kv_fixed_bytes", "kv_bytes_per_token")
    if any(name not in values for name in wanted):
        return {}
    weights, fixed, slope = (values[name].value for name in wanted)
    cache = budget.batch * (fixed + budget.context * slope)
    return {HELD: Value(weights + cache + dimensions.buffer_bytes(budget.batch))}


def _largest(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the model, protocol and machine with the most runs."""
    groups = [rows for _, rows in frame.groupby(["model", "protocol", "hardware_id"])]
    return max(groups, key=len) if groups else frame


def _end(value: float) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
