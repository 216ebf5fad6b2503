"""Bytes that a recipe will leave of a model, counted from outlines before anything runs; no torch.

Methods for matrices are counted to the byte where their outline is exact. What reshapes a whole
model, or drafts and caches, is taken at its level.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from dataclasses import dataclass

from backend.dimensions import Dimensions
from backend.errors import OutOfReachError
from backend.methods.base import (
    CacheMethod,
    LayerMethod,
    ModelMethod,
    PrefillMethod,
    RepairMethod,
    StackMethod,
    TableMethod,
)
from backend.recipes import Recipe
from backend.search.base import LADDER, check_parts, check_reach


@dataclass(frozen=True)
class Size:
    """Weights in memory, and how sure that is.

    Attributes:
        weights: bytes of all tensors.
        kv_bits: bits of a number in the cache.
        exact: whether the weights will take these very bytes, else the most they can.
    """

    weights: int
    kv_bits: float
    exact: bool

    def total(self, dimensions: Dimensions, context: int, batch: int) -> int:
        """Weights, keys and values of `batch` sequences of `context` tokens, and buffers.

        Without a context the weights alone.
        """
        if not context:
            return self.weights
        cache = dimensions.kv_bytes(context, batch, self.kv_bits)
        return self.weights + cache + dimensions.buffer_bytes(batch)


def size_of(recipe: Recipe, dimensions: Dimensions) -> Size:
    """What a recipe leaves of a model.

    Raises:
        ModelError: a stage cannot treat this model.
        OutOfReachError: this model cannot be held in so little.
    """
    kv_bits = 16.0
    for stage in recipe.stages:
        if isinstance(stage, ModelMethod | PrefillMethod):
            stage.check(dimensions.anatomy)
        elif isinstance(stage, CacheMethod):
            stage.codec(dimensions.heads, dimensions.head_dim)
            kv_bits = min(16.0, stage.settings().get(stage.level, 16.0))
    weights, exact = _weights(recipe, dimensions)
    if draft := recipe.draft():
        beside = size_of(draft, dimensions)
        weights, exact = weights + beside.weights, exact and beside.exact
    return Size(weights, kv_bits, exact)


def _weights(recipe: Recipe, dimensions: Dimensions) -> tuple[int, bool]:
    """Bytes of all tensors, and whether it is these or the most they can be.

    Of what a model method cuts by the data only the numbers that it leaves are known. They are
    missing from the matrices, so that so much less is saved there; tables of tokens are whole.
    """
    cutting = next((one for one in recipe.stages if isinstance(one, ModelMethod)), None)
    tables, share, left = recipe.tables, 1.0, None
    if cutting is not None:
        left = cutting.left(dimensions.anatomy)
        dimensions = dimensions if left is None else dimensions.of_what_is_left(left)
        tables = None if cutting.holds_tables else tables
    dense, anatomy = dimensions.dense_bytes, dimensions.anatomy
    if cutting is not None and left is None:
        gone = anatomy.numbers * (1 - min(1.0, cutting.settings()[cutting.level] / 16))
        dense -= int(2 * gone)
        gone += sum(units.bias for units in anatomy.units)  # what some methods write instead
        share = 1.0 if cutting.holds_tables else max(0.0, 1 - gone / max(1, anatomy.linear))
    held, sure = _together(recipe, dimensions)
    for stage in recipe.stages:
        for shape, count in dimensions.matrices if isinstance(stage, RepairMethod) else ():
            added, known = stage.added(*shape)
            held += count * added
            sure &= known
    saved, known = (0, True) if tables is None else tables.saved(anatomy)
    weights = dense - round(share * (2 * dimensions.linear - held)) - saved
    exact = sure and known and recipe.encoder is None
    return weights, exact and (cutting is None or left is not None)


def turned(recipe: Recipe, bits: float) -> Recipe:
    """The same with the level of its last stage that holds weights, else its cache's, turned.

    Raises:
        OutOfReachError: that stage does not reach so low, or nothing here has a level.
    """
    index = turning(recipe)
    if index is None:
        raise OutOfReachError(
            f"{recipe.text()} holds every number as it is; add a method that holds fewer bits."
        )
    stages = list(recipe.stages)
    stages[index] = stages[index].at(bits)
    return dataclasses.replace(recipe, stages=tuple(stages))


def turning(recipe: Recipe) -> int | None:
    """Which stage a budget turns: the last for matrices, else models, tables, or the cache."""
    for kind in (LayerMethod, ModelMethod, TableMethod, CacheMethod):
        found = [
            index
            for index, stage in enumerate(recipe.stages)
            if isinstance(stage, kind) and stage.level in stage.settings()
        ]
        if found:
            return found[-1]
    return None


def level_of(recipe: Recipe) -> float:
    """The level of the stage that a budget turns; 16 where there is none."""
    index = turning(recipe)
    if index is None:
        return 16.0
    stage = recipe.stages[index]
    return float(stage.settings()[stage.level])


def reach(recipe: Recipe) -> tuple[float, float]:
    """Lowest and highest level of the stage that a budget turns."""
    index = turning(recipe)
    if index is None:
        return 16.0, 16.0
    stage = recipe.stages[index]
    about = next(one for one in dataclasses.fields(stage) if one.name == stage.level).metadata
    return about["low"], about["high"]


def _together(recipe: Recipe, dimensions: Dimensions) -> tuple[int, bool]:
    """Bytes of all matrices before repairs, and whether it is these or the most they can be.

    A budget that is divided, or that a stack is read up to, counts all matrices as one.
    """
    methods = recipe.layer_methods
    if recipe.division is not None:
        _check_divided(recipe, methods[0], dimensions)
    elif methods and isinstance(methods[0], StackMethod):
        shapes = [shape for shape, count in dimensions.matrices for _ in range(count)]
        check_parts(methods[0], shapes)
    else:
        parts = [(count, *_held(methods, shape)) for shape, count in dimensions.matrices]
        return sum(count * nbytes for count, nbytes, _ in parts), all(one[2] for one in parts)
    return int(level_of(recipe) * dimensions.linear / 8), False


def _check_divided(recipe: Recipe, method: LayerMethod, dimensions: Dimensions) -> None:
    """Refuse a budget below the lowest levels of all matrices, as far as their bytes are known."""
    least = 0
    for shape, count in dimensions.matrices:
        nbytes, exact = _lowest_level(method, shape)
        least += count * nbytes if exact else 0
    budget = int(level_of(recipe) * dimensions.linear / 8)
    check_reach(recipe.text(), least, dimensions.linear, budget)


def _lowest_level(method: LayerMethod, shape: tuple[int, int]) -> tuple[int, bool]:
    """What a matrix takes at the lowest of the fixed levels that hold it."""
    for bits in LADDER:
        with contextlib.suppress(OutOfReachError):
            return _held((method.at(bits),), shape)
    return _held((method,), shape)  # says why it cannot


@functools.lru_cache(maxsize=8192)  # many recipes and levels ask for the same matrix
def _held(methods: tuple[LayerMethod, ...], shape: tuple[int, int]) -> tuple[int, bool]:
    nbytes, leaves, exact = 0, [shape], True
    for method in methods:
        inner: list[tuple[int, int]] = []
        for leaf in leaves:
            outline = method.outline(*leaf)
            nbytes += outline.nbytes
            inner += outline.leaves
            exact &= outline.exact
        leaves = inner
    return nbytes + sum(2 * rows * columns for rows, columns in leaves), exact
