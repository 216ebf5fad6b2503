"""How long a run takes, said before it starts: by runs that are known, by counting otherwise.

What is counted is reading text and what methods say of themselves (`Method.effort`). Rates are
those of an ordinary processor, so that a count is right within a few times; known runs take its
place as soon as there are any. Imports no torch.
"""

from __future__ import annotations

import functools
import math
import re
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

from backend.calibrate import EACH, MOST_SAMPLES, TOGETHER
from backend.errors import ParetoscopeError
from backend.measure.hardware import usable_cores
from backend.methods.base import (
    THERE_AND_BACK,
    CacheMethod,
    Needs,
    RankingMethod,
    ServeMethod,
    Text,
)
from backend.plan import CALIBRATION
from backend.recipes import UNIFORM, Recipe

if TYPE_CHECKING:
    import pandas as pd

    from backend.methods.anatomy import Anatomy
    from backend.sources import ModelSource

MULTIPLIED = 1e10  # multiplications in products that a core makes in a second
WIDE, FASTER = 1024, 4  # sides of matrices from which text passes blocks so many times as fast
TOUCHED = 1e9  # numbers that memory brings and takes back in a second
MEASURING = 8.0  # seconds to load the embedded model and to look at what became of it
EACH_BILLION = 120.0  # seconds that loading, writing and measuring a billion numbers take beside
NEWEST = 100  # known runs that count
TEXTS = 4096  # recipes of known runs that are read once, as each estimate asks for all of them
TEXT = Text(
    tokens=CALIBRATION["windows"] * CALIBRATION["length"],
    windows=min(EACH, CALIBRATION["windows"]),
    step=TOGETHER * CALIBRATION["length"],
    samples=MOST_SAMPLES,
)


def expected(
    recipe: Recipe, source: ModelSource, anatomy: Anatomy, known: pd.DataFrame
) -> tuple[float, str]:
    """Seconds from start to result, and what they rest on.

    Args:
        recipe: what will be done.
        source: the model.
        anatomy: of that model.
        known: finished runs with columns model, recipe, family and seconds, the newest first.
    """
    same = known[known["model"] == source.name] if len(known) else known
    if len(same):
        wanted = _methods(recipe.text())
        alike = same[[_methods(text) == wanted for text in same["recipe"].tolist()]].head(NEWEST)
        if len(alike):
            seconds = _like(alike, recipe, anatomy)
            return seconds, f"{len(alike)} runs of these methods and model"
        if recipe.division is not None and (more := _dividing(recipe, source, anatomy, same)):
            seconds, basis = expected(_undivided(recipe), source, anatomy, known)
            return seconds + statistics.median(more), f"{basis}, and {len(more)} divided alike"
        family = same[same["family"] == recipe.family]
        runs, what = (family, "this family and model") if len(family) else (same, "this model")
        runs = runs.head(NEWEST)
        return _unlike(runs, recipe, anatomy), f"{len(runs)} runs of {what}"
    seconds = MEASURING + EACH_BILLION * anatomy.numbers / 1e9 + compressing(recipe, anatomy)
    return seconds, "the size of the model; no run of it is known yet"


def compressing(recipe: Recipe, anatomy: Anatomy) -> float:
    """Seconds to read text and to treat the model, counted."""
    treating = [one for one in recipe.stages if not isinstance(one, CacheMethod | ServeMethod)]
    needs = Needs.NOTHING
    for one in treating:
        needs |= one.needs
    read = 0.0 if needs is Needs.NOTHING else TEXT.tokens * anatomy.linear
    back = THERE_AND_BACK * anatomy.numbers
    if Needs.GRADIENTS in needs or any(isinstance(one, RankingMethod) for one in treating):
        read += back * TEXT.tokens
    if Needs.EACH_GRADIENT in needs:  # block by block, of the whole model as it is by then
        read += back * len(anatomy.blocks) * TEXT.windows * CALIBRATION["length"]
    reading = read / (MULTIPLIED * _gain(anatomy) * cores())
    return reading + _treating(recipe, anatomy)


def _gain(anatomy: Anatomy) -> float:
    """How much faster text passes large matrices than small ones, beside which all else counts."""
    matrices = [part for block in anatomy.blocks for part in block.values() if len(part) > 1]
    side = math.sqrt(anatomy.linear / max(1, len(matrices)))
    return min(FASTER, max(1.0, FASTER * side / WIDE))


def _treating(recipe: Recipe, anatomy: Anatomy) -> float:
    """Seconds of what methods say of themselves."""
    efforts = [one.effort(anatomy, TEXT) for one in recipe.stages]
    busy = sum(one.multiplied / MULTIPLIED + one.core_seconds for one in efforts)
    return busy / cores() + sum(one.touched for one in efforts) / TOUCHED


@functools.cache
def cores() -> int:
    """Cores that this process may use; asked once, as it takes longer than all else here."""
    return usable_cores()


def _like(runs: pd.DataFrame, recipe: Recipe, anatomy: Anatomy) -> float:
    """The median of runs of the same methods, each as much longer as its settings tell."""
    own, found = _treating(recipe, anatomy), []
    for seconds, text in zip(runs["seconds"], runs["recipe"], strict=True):
        theirs = _told(text, anatomy)
        more = own / theirs - 1 if theirs > 0 else 0.0
        found.append(seconds + max(0.0, seconds - MEASURING) * more)
    return statistics.median(found)


def _unlike(runs: pd.DataFrame, recipe: Recipe, anatomy: Anatomy) -> float:
    """The median of runs of other methods, without what those do and with what these will."""
    rest = [
        max(0.0, seconds - _told(text, anatomy))
        for seconds, text in zip(runs["seconds"], runs["recipe"], strict=True)
    ]
    return statistics.median(rest) + _treating(recipe, anatomy)


def _dividing(
    recipe: Recipe, source: ModelSource, anatomy: Anatomy, same: pd.DataFrame
) -> list[float]:
    """Seconds that dividing a budget took in known runs: beyond those of the run undivided."""
    found = []
    key = recipe.division.key() if recipe.division is not None else ""
    for seconds, text in zip(same["seconds"], same["recipe"], strict=True):
        theirs = _parsed(text) if " by " in text else None
        if theirs is None or theirs.division is None or theirs.division.key() != key:
            continue
        plain, _ = expected(_undivided(theirs), source, anatomy, same)
        found.append(max(0.0, seconds - plain))
    return found[:NEWEST]


def _undivided(recipe: Recipe) -> Recipe:
    return replace(recipe, allocator=UNIFORM)


def _told(text: str, anatomy: Anatomy) -> float:
    """What the methods of a run say of themselves; 0 where its settings are no longer known."""
    recipe = _parsed(text)
    return 0.0 if recipe is None else _treating(recipe, anatomy)


@functools.lru_cache(TEXTS)
def _parsed(text: str) -> Recipe | None:
    try:
        return Recipe.parse(text)
    except ParetoscopeError:
        return None


@functools.lru_cache(TEXTS)
def _methods(text: str) -> tuple[str, ...]:
    """Keys of a recipe's methods, and the allocator's, by its short form."""
    return tuple(re.findall(r"(?:^| \+ | by )([\w-]+)", text))
