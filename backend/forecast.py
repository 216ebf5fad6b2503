"""What a run's quality will be, from the runs that are known; every number here is estimated.

KL divergence falls roughly by a constant factor with every bit, so its logarithm is drawn
straight between two measured levels of the same method on the same model. What a method did to
other models stands in where this one has no runs yet. Divergences of several stages are added.
The interval is as wide as the same rule misses when each known run is left out in turn.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import pandas as pd

from backend import methods
from backend.errors import ParetoscopeError
from backend.methods.base import CacheMethod, Method, ServeMethod, Stage
from backend.recipes import Recipe

METRIC = "kld_mean"
NARROWEST = 0.1  # half a log interval: nothing is known better before it is measured
FEWEST = 4  # residuals from which a spread is taken
UNKNOWN = math.log(3)  # standard deviation where too few runs tell
LEAST = 1e-6  # nats; below, divergences are rounding

Curve = dict[float, float]  # level: ln of the divergence
Key = tuple[str, str, str]  # model, method with its settings, allocator


@dataclass(frozen=True)
class Forecast:
    """A divergence before it is measured.

    Attributes:
        value: nats a token.
        low: lower end of the 95 % interval.
        high: upper end.
        basis: what it rests on.
    """

    value: float
    low: float
    high: float
    basis: str


@dataclass(frozen=True)
class _Guess:
    log: float
    spread: float
    basis: str


class Forecaster:
    """Everything that is known, as one curve for each model, method and setting."""

    def __init__(self, measured: dict[tuple[str, str], float], curves: dict[Key, Curve]) -> None:
        self._measured, self._curves = measured, curves
        self._spreads: dict[str, float] = {}

    @classmethod
    def of(cls, known: pd.DataFrame) -> Self:
        """Learn from finished runs with columns model, recipe and `kld_mean`."""
        measured: dict[tuple[str, str], float] = {}
        curves: dict[Key, Curve] = defaultdict(dict)
        for row in known.itertuples():
            value = float(getattr(row, METRIC))
            if not math.isfinite(value):
                continue
            measured.setdefault((row.model, row.recipe), value)
            for key, level in _single(row.model, row.recipe):
                curves[key].setdefault(level, math.log(max(value, LEAST)))
        return cls(measured, curves)

    def quality(self, recipe: Recipe, model: str) -> Forecast | None:
        """The divergence to expect; None where nothing like it was ever run."""
        if not recipe.stages:
            return Forecast(0.0, 0.0, 0.0, "the dense model itself")
        if (known := self._measured.get((model, recipe.text()))) is not None:
            return Forecast(known, known, known, "the same recipe measured on this model")
        stages = [one for one in recipe.stages if _costs(one)]
        guesses = [self._guess(stage, recipe.allocator, model) for stage in stages]
        found = [guess for guess in guesses if guess is not None]
        if len(found) < len(guesses):
            return None
        total = sum(math.exp(guess.log) for guess in found)
        if not found or not total:
            return Forecast(
                0.0, 0.0, 0.0, "drafting and lossless codes leave the distribution as it is"
            )
        spread = math.sqrt(
            sum((math.exp(guess.log) / total * guess.spread) ** 2 for guess in found)
        )
        if len(found) > 1:
            spread = math.hypot(spread, 0.3)  # stages do not simply add
        width = math.exp(1.96 * max(spread, NARROWEST))
        basis = " + ".join(dict.fromkeys(guess.basis for guess in found))
        return Forecast(total, total / width, total * width, basis)

    def _guess(self, stage: Method, allocator: str, model: str) -> _Guess | None:
        level, name = _level(stage), _named(stage)
        if level is None:
            return None
        if level >= 16 and not isinstance(stage, CacheMethod):
            return _Guess(math.log(LEAST), NARROWEST, "every number stays as it is")
        own = self._curves.get((model, name, allocator)) or self._curves.get(
            (model, name, "uniform")
        )
        if own:
            spread = self._spread(model) * (1.0 + _distance(own, level))
            return _Guess(_read(own, level), spread, f"{len(own)} runs of it on this model")
        others = [
            curve
            for (other, one, _), curve in self._curves.items()
            if one.split("(")[0] == stage.key() and curve and other != model
        ]
        same = [
            curve
            for (other, one, _), curve in self._curves.items()
            if one.split("(")[0] == stage.key() and other == model and curve
        ]
        told = "it with other settings on this model" if same else "it on other models"
        if not (chosen := same or others):
            chosen = [
                curve
                for (other, one, _), curve in self._curves.items()
                if other == model and _family(one) == stage.family() and curve
            ]
            told = f"other methods that {stage.family()} on this model"
        if not chosen:
            return None
        logs = [_read(curve, level) for curve in chosen]
        middle = sum(logs) / len(logs)
        apart = sum((one - middle) ** 2 for one in logs) / max(1, len(logs) - 1)
        spread = math.hypot(math.sqrt(apart) if len(logs) > 1 else UNKNOWN, 0.3)
        return _Guess(middle, spread, f"{sum(map(len, chosen))} runs of {told}")

    def _spread(self, model: str) -> float:
        """How far off interpolation lands, in logs, when each run is left out in turn."""
        if model not in self._spreads:
            self._spreads[model] = self._spread_of(model)
        return self._spreads[model]

    def _spread_of(self, model: str) -> float:
        squares = []
        for (own, _, _), curve in self._curves.items():
            levels = sorted(curve)
            if own != model or len(levels) < 3:
                continue
            for level in levels[1:-1]:
                rest = {one: curve[one] for one in levels if one != level}
                squares.append((_read(rest, level) - curve[level]) ** 2)
        if len(squares) < FEWEST:
            return UNKNOWN
        return max(NARROWEST, math.sqrt(sum(squares) / len(squares)))


def _single(model: str, text: str) -> Iterable[tuple[Key, float]]:
    """Key and level of a recipe that holds numbers in one way alone."""
    try:
        recipe = Recipe.parse(text)
    except ParetoscopeError:  # of a method that this copy does not have
        return
    stages = [one for one in recipe.stages if not isinstance(one, ServeMethod)]
    if len(stages) == 1 and (level := _level(stages[0])) is not None:
        yield (model, _named(stages[0]), recipe.allocator), level


def _costs(stage: Method) -> bool:
    """Whether a stage may add to the divergence: drafts are verified, repairs and codes do not."""
    return stage.stage not in (Stage.REPAIR, Stage.ENCODE, Stage.PREFILL, Stage.DECODE)


def _level(stage: Method) -> float | None:
    level = stage.settings().get(stage.level)
    return None if level is None else float(level)


def _named(stage: Method) -> str:
    """The method with all settings but its level."""
    defaults = type(stage)().settings()
    changed = {
        name: value
        for name, value in stage.settings().items()
        if name != stage.level and value != defaults[name]
    }
    return f"{stage.key()}({','.join(f'{name}={value}' for name, value in changed.items())})"


def _family(name: str) -> str:
    return methods.find(name.split("(")[0]).family()


def _read(curve: Curve, level: float) -> float:
    """A curve at a level: straight between its points, half as steep beyond its ends."""
    points = sorted(curve.items())
    if len(points) == 1:
        return points[0][1] - (level - points[0][0]) * math.log(2)
    pairs = list(pairwise(points))
    low, high = next((pair for pair in pairs if level <= pair[1][0]), pairs[-1])
    slope = (high[1] - low[1]) / (high[0] - low[0])
    inside = min(max(level, points[0][0]), points[-1][0])
    return low[1] + slope * (inside - low[0]) + slope / 2 * (level - inside)


def _distance(curve: Curve, level: float) -> float:
    """Bits beyond the ends of a curve; 0 inside."""
    return max(min(curve) - level, level - max(curve), 0.0)
