"""What a run will take, said before it starts: bytes, memory, time, quality; imports no torch.

Everything here is `estimated`. Bytes follow from the shapes in the model's files; seconds are
those of `backend.duration`.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from backend.calibrate import AT_ONCE, BATCH_TOKENS, EACH, TOGETHER
from backend.dimensions import Dimensions
from backend.duration import expected
from backend.errors import ResourceError
from backend.forecast import Forecast, Forecaster
from backend.methods.base import (
    CacheMethod,
    ModelMethod,
    Needs,
    RunMethod,
    ServeMethod,
    TuneMethod,
)
from backend.plan import CALIBRATION, Predicted
from backend.recipes import Recipe
from backend.sizes import size_of
from backend.sources import ModelSource

BASE_MEMORY = 400 << 20  # bytes: interpreter, torch and transformers
WORKING_MEMORY = 64 << 20  # bytes that torch takes once it computes, whatever the model
STREAMS = 2  # of hidden states: before a block and behind it
WIDE = 4  # arrays as wide as a block grows between two linears
MOMENTS = 3  # matrices of a layer's inputs: their Hessian, its inverse factor, and room for it
WINDOWS = 8  # whose gradients of a matrix are there at once
KEPT = 2.7  # numbers kept for the way back, to each that goes into a matrix or comes out of it
ROUNDED = 12  # arrays of a matrix that is learned, while its rounding finds the way back
SCORES = 4  # arrays of a score to each token and entry of the vocabulary, until they are judged


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take.

    Attributes:
        resident_bytes: of the compressed model in memory.
        dense_bytes: of the model as it is.
        peak_bytes: highest memory of the worker.
        seconds: from start to result.
        basis: what the seconds rest on.
        exact: whether the resident bytes are counted to the byte, else the most they can be.
        quality: the KL divergence to expect; None where nothing like it was ever run.
        compressing_bytes: highest memory of the worker that compresses; 0 where not told apart.
    """

    resident_bytes: int
    dense_bytes: int
    peak_bytes: int
    seconds: float
    basis: str
    exact: bool = False
    quality: Forecast | None = None
    compressing_bytes: int = 0

    def lacking(self, home: Path) -> str:
        """Why this machine cannot hold the run: what it needs, what is there; empty if it can."""
        free = psutil.virtual_memory().available
        if self.peak_bytes > free:
            return (
                f"This run needs about {self.peak_bytes / 1e9:.1f} GB of memory and "
                f"{free / 1e9:.1f} GB are free; close other programs or take a smaller model."
            )
        disk = shutil.disk_usage(home).free
        if 2 * self.resident_bytes > disk:
            return (
                f"This run writes about {self.resident_bytes / 1e9:.1f} GB and {disk / 1e9:.1f} GB "
                f"are free in {home}; free some space or set PARETOSCOPE_HOME to another disk."
            )
        return ""

    def readings(self) -> Predicted:
        """The same as readings, to be graded by what is measured."""
        peak = self.compressing_bytes or self.peak_bytes
        found: Predicted = {
            "predicted_resident_bytes": (self.resident_bytes, None, None),
            "predicted_compress_peak": (peak - BASE_MEMORY, None, None),
            "predicted_seconds": (self.seconds, None, None),
        }
        if self.quality is not None:
            quality = self.quality
            found["predicted_kld_mean"] = (quality.value, quality.low, quality.high)
        return found

    @property
    def heavy(self) -> bool:
        """Whether the run leaves too little memory for another beside it."""
        return 4 * self.peak_bytes > psutil.virtual_memory().total


def estimate(
    recipe: Recipe,
    source: ModelSource,
    known: pd.DataFrame,
    forecaster: Forecaster | None = None,
) -> Estimate | None:
    """What `recipe` will take on a model whose files are here; None for others.

    Args:
        recipe: what will be done.
        source: the model.
        known: finished runs with columns model, recipe, family and seconds.
        forecaster: what is known of quality.
    """
    dimensions = Dimensions.of(source)
    if dimensions is None:
        return None
    size = size_of(recipe, dimensions)
    seconds, basis = expected(recipe, source, dimensions.anatomy, known)
    dense, held = dimensions.dense_bytes, BASE_MEMORY + size.weights
    compressing = held + 2 * dense + _working(recipe, dimensions)
    # While it is measured the dense model is there in both types, to be timed in the quicker one.
    peak = max(compressing, held + 3 * dense)
    quality = None if forecaster is None else forecaster.quality(recipe, source.name)
    return Estimate(
        *(size.weights, dense, peak, seconds, basis, size.exact, quality),
        compressing_bytes=compressing,
    )


def check_room(found: Estimate, home: Path) -> None:
    """Refuse what this machine cannot hold.

    Raises:
        ResourceError: says what is needed, what is there and what helps.
    """
    if lacking := found.lacking(home):
        raise ResourceError(lacking)


def _working(recipe: Recipe, dimensions: Dimensions) -> int:
    """Bytes beside the model while its weights are treated; none where they stay."""
    treating = [one for one in recipe.stages if not isinstance(one, CacheMethod | ServeMethod)]
    if not treating:
        return 0
    needs = Needs.NOTHING
    for one in treating:
        needs |= one.needs
    states, moments = 0, 0
    if needs is not Needs.NOTHING:
        tokens = CALIBRATION["windows"] * CALIBRATION["length"]
        widest = max((max(shape) for shape, _ in dimensions.matrices), default=0)
        at_once = tokens if tokens * widest <= AT_ONCE else BATCH_TOKENS
        states = 4 * (STREAMS * tokens * dimensions.hidden + WIDE * at_once * widest)
    if Needs.HESSIAN in needs:
        inputs = {columns for (_, columns), _ in dimensions.matrices}
        moments = MOMENTS * 4 * sum(columns**2 for columns in inputs)
    if any(isinstance(one, ModelMethod) and one.keeps for one in treating):
        moments += sum(  # of what writes into the stream: a matrix, one mended, and moments
            4 * count * columns * (columns + 2 * rows)
            for (rows, columns), count in dimensions.matrices
            if rows == dimensions.hidden
        )
    gradients = 0
    largest = max((math.prod(shape) for shape, _ in dimensions.matrices), default=0)
    if recipe.keeps_gradients:
        gradients = 4 * (dimensions.linear + WINDOWS * largest)  # a number to each weight is kept
    if Needs.EACH_GRADIENT in needs:
        block = max(dimensions.anatomy.block_numbers, default=0)
        gradients += EACH * (2 * block + 8 * largest)  # in 16 bits; a matrix's in 32, twice
    trained = max((one.together for one in treating if isinstance(one, TuneMethod)), default=0)
    sides = sum((rows + columns) * count for (rows, columns), count in dimensions.matrices)
    way_back = KEPT * sides + SCORES * dimensions.vocabulary
    trained *= CALIBRATION["length"] * 4 * round(way_back)
    trained += 4 * dimensions.linear if trained else 0  # dense matrices, kept for it too
    learned = _learned(recipe, dimensions, KEPT * sides)
    return WORKING_MEMORY + states + moments + gradients + trained + learned


def _learned(recipe: Recipe, dimensions: Dimensions, way_back: float) -> int:
    """Bytes of a run of blocks while it learns, and of the model in float32; 0 if none does.

    Args:
        recipe: where a budget is divided, each matrix learns alone.
        dimensions: of the model.
        way_back: numbers kept to each token that passes all blocks.
    """
    runs = [one.runs[0] for one in recipe.stages if isinstance(one, RunMethod)]
    if not runs or recipe.division is not None:
        return 0
    blocks = dimensions.anatomy.block_numbers
    share = min(1.0, max(runs) / max(1, len(blocks)))
    states = share * way_back * TOGETHER * CALIBRATION["length"]
    weights = ROUNDED * sum(sorted(blocks)[-max(runs) :])
    return 4 * (round(states) + weights) + dimensions.dense_bytes
