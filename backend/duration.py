"""How long a run takes, said before it starts: by runs that are known, by counting otherwise.

What is counted is reading text, a few looks at each matrix, and what methods say of themselves
(`Method.effort`). Rates are those of an ordinary processor, so that a count is right within a few
times; known runs take its place as soon as there are any. Imports no torch.
"""

from __future__ import annotations

import re
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
from backend.recipes import Recipe

if TYPE_CHECKING:
    import pandas as pd

    from backend.methods.anatomy import Anatomy
    from backend.sources import ModelSource

MULTIPLIED = 1.5e10  # multiplications in products that a core makes in a second
TOUCHED = 1e9  # numbers that memory brings and takes back in a second
MEASURING = 8.0  # seconds to load the embedded model and to look at what became of it
EACH_BILLION = 120.0  # seconds that loading, writing and measuring a billion numbers take beside
LOOKS = {Needs.NOTHING: 20.0, Needs.HESSIAN: 240.0}  # seconds for a billion numbers, by needs
PASSES = 2  # of all text through a block: to look at it, and to go on with what it became
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
        known: finished runs with columns model, recipe, family and seconds.
    """
    same = known[known["model"] == source.name] if len(known) else known
    if len(same):
        wanted, own = _methods(recipe.text()), _learning(recipe, anatomy)
        alike = same[[_methods(text) == wanted for text in same["recipe"]]]
        if len(alike):
            return _scaled(alike, own, anatomy), f"{len(alike)} runs of these methods and model"
        family = same[same["family"] == recipe.family]
        runs, what = (family, "this family and model") if len(family) else (same, "this model")
        return float(runs["seconds"].median()) + own, f"{len(runs)} runs of {what}"
    seconds = MEASURING + EACH_BILLION * anatomy.numbers / 1e9 + compressing(recipe, anatomy)
    return seconds, "the size of the model; no run of it is known yet"


def compressing(recipe: Recipe, anatomy: Anatomy) -> float:
    """Seconds to read text and to treat all matrices, counted."""
    treating = [one for one in recipe.stages if not isinstance(one, CacheMethod | ServeMethod)]
    looks, needs = 0.0, Needs.NOTHING
    for one in treating:
        needs |= one.needs
        looks += max(seconds for need, seconds in LOOKS.items() if need in one.needs)
    read = 0.0 if needs is Needs.NOTHING else PASSES * TEXT.tokens * anatomy.linear
    back = THERE_AND_BACK * anatomy.numbers
    if Needs.GRADIENTS in needs or any(isinstance(one, RankingMethod) for one in treating):
        read += back * TEXT.tokens
    if Needs.EACH_GRADIENT in needs:  # block by block, of the whole model as it is by then
        read += back * len(anatomy.blocks) * TEXT.windows * CALIBRATION["length"]
    reading = read / (MULTIPLIED * usable_cores())
    return reading + looks * anatomy.numbers / 1e9 + _learning(recipe, anatomy)


def _learning(recipe: Recipe, anatomy: Anatomy) -> float:
    """Seconds of what methods say of themselves."""
    efforts = [one.effort(anatomy, TEXT) for one in recipe.stages]
    multiplied = sum(one.multiplied for one in efforts) / (MULTIPLIED * usable_cores())
    return multiplied + sum(one.touched for one in efforts) / TOUCHED


def _scaled(runs: pd.DataFrame, own: float, anatomy: Anatomy) -> float:
    """The median of runs of the same methods, each as long as its settings tell beside these."""
    found = runs["seconds"]
    if own > 0:
        theirs = [_told(text, anatomy) for text in runs["recipe"]]
        found = found + [
            max(0.0, seconds - MEASURING) * (own / other - 1) if other > 0 else 0.0
            for seconds, other in zip(found, theirs, strict=True)
        ]
    return float(found.median())


def _told(text: str, anatomy: Anatomy) -> float:
    """What the methods of a run say of themselves; 0 where its settings are no longer known."""
    try:
        return _learning(Recipe.parse(text), anatomy)
    except ParetoscopeError:
        return 0.0


def _methods(text: str) -> tuple[str, ...]:
    """Keys of a recipe's methods, and the allocator's, by its short form."""
    return tuple(re.findall(r"(?:^| \+ | by )([\w-]+)", text))
