"""What a run will take, said before it starts: bytes, peak memory, seconds; imports no torch.

Everything here is `estimated`. Bytes follow from the shapes in the model's files; seconds from
runs of the same method and model in the store, or from the size of the model where there are
none.
"""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from backend.errors import ResourceError
from backend.methods.base import LayerMethod, ModelMethod
from backend.recipes import Recipe
from backend.sources import ModelSource

BLOCK = re.compile(r"(^|\.)(layers|h|blocks)\.\d+\.")
BASE_MEMORY = 400 << 20  # bytes: interpreter, torch and transformers
SECONDS_PER_BILLION = {"nothing": 20.0, "norms": 60.0, "hessian": 240.0}
MEASURING_SECONDS = 8.0


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take.

    Attributes:
        resident_bytes: of the compressed model in memory.
        dense_bytes: of the model as it is.
        peak_bytes: highest memory of the worker.
        seconds: from start to result.
        basis: what the seconds rest on.
    """

    resident_bytes: int
    dense_bytes: int
    peak_bytes: int
    seconds: float
    basis: str

    @property
    def heavy(self) -> bool:
        """Whether the run leaves too little memory for another beside it."""
        return 4 * self.peak_bytes > psutil.virtual_memory().total


def estimate(recipe: Recipe, source: ModelSource, known: pd.DataFrame) -> Estimate | None:
    """What `recipe` will take on a model whose files are here; None for others.

    Args:
        recipe: what will be done.
        source: the model.
        known: finished runs with columns model, recipe, family and seconds.
    """
    shapes = source.shapes()
    if not shapes:
        return None
    total = sum(math.prod(shape) for shape in shapes.values())
    matrices = sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if len(shape) == 2 and BLOCK.search(name) and name.endswith("weight")
    )
    resident = _resident(recipe, total, matrices)
    if draft := recipe.draft():
        resident += _resident(draft, total, matrices)
    dense = 2 * total
    seconds, basis = _seconds(recipe, source, total, known)
    peak = BASE_MEMORY + 2 * dense + resident
    return Estimate(int(resident), dense, int(peak), seconds, basis)


def check_room(found: Estimate, home: Path) -> None:
    """Refuse what this machine cannot hold.

    Raises:
        ResourceError: says what is needed, what is there and what helps.
    """
    free = psutil.virtual_memory().available
    if found.peak_bytes > free:
        raise ResourceError(
            f"This run needs about {found.peak_bytes / 1e9:.1f} GB of memory and "
            f"{free / 1e9:.1f} GB are free; close other programs or take a smaller model."
        )
    disk = shutil.disk_usage(home).free
    if 2 * found.resident_bytes > disk:
        raise ResourceError(
            f"This run writes about {found.resident_bytes / 1e9:.1f} GB and {disk / 1e9:.1f} GB "
            f"are free in {home}; free some space or set PARETOSCOPE_HOME to another disk."
        )


def _resident(recipe: Recipe, total: int, matrices: int) -> float:
    kept, bits = 1.0, 16.0
    for stage in recipe.stages:
        level = stage.settings().get(stage.level, 16.0)
        if isinstance(stage, ModelMethod):
            kept = min(1.0, level / 16)
        elif isinstance(stage, LayerMethod):
            bits = min(bits, level)
    return kept * (2 * (total - matrices) + matrices * bits / 8)


def _seconds(
    recipe: Recipe, source: ModelSource, total: int, known: pd.DataFrame
) -> tuple[float, str]:
    if len(known):
        same = known[known["model"] == source.name]
        exact = same[same["family"] == recipe.family]
        if len(exact):
            return float(exact["seconds"].median()), f"{len(exact)} runs of this family and model"
        if len(same):
            return float(same["seconds"].median()), f"{len(same)} runs of this model"
    cost = 0.0
    for stage in recipe.stages:
        needs = [need.name.lower() for need in stage.needs] or ["nothing"]
        cost += max(SECONDS_PER_BILLION.get(need, 240.0) for need in needs)
    seconds = MEASURING_SECONDS + total / 1e9 * (cost + 120.0)
    return seconds, "the size of the model; no run of it is known yet"
