"""Turns a wish (recipe, model, how thoroughly) into a job; imports no torch.

Three keys name what is shared: an artefact by what makes it, a quality by what judges it, a
run by where it was timed. The run's key is its id and its permalink.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend import hub
from backend.device import promised
from backend.errors import ModelError, SettingError
from backend.extras import Extras
from backend.measure.hardware import hardware_id, software, usable_cores
from backend.measure.reading import PROTOCOL
from backend.recipes import Recipe, digest
from backend.sources import EMBEDDED, ModelSource, check_folder, fingerprint
from backend.texts import Texts

TIERS = ("smoke", "quick", "full")
SPEEDS = ("", "sweep", "full")
WALKS = ("sequential", "parallel")
SCHEMA = 3  # of what an artefact is made by; raised when all change
CALIBRATION = {"windows": 64, "length": 256}
DTYPE = "bfloat16"


Predicted = dict[str, tuple[float, float | None, float | None]]
"""What is expected of a run, by the name of its reading: value, low and high."""


@dataclass(frozen=True)
class Plan:
    """A job that is ready to be queued."""

    run_id: str
    spec: dict[str, Any]
    model: str
    recipe: Recipe


def plan(
    recipe: Recipe,
    source: ModelSource,
    *,
    tier: str = "quick",
    speed: str = "sweep",
    texts: Texts | None = None,
    extras: Extras | None = None,
    walk: str = "sequential",
    budget: dict[str, float] | None = None,
    predicted: Predicted | None = None,
    heavy: bool = False,
    timeout_seconds: float | None = None,
    memory_limit_bytes: int | None = None,
) -> Plan:
    """The job that carries out a recipe on a model.

    Raises:
        ModelError: the model is not to be had.
        DataError: a text cannot be read, or judges what was calibrated on it.
        SettingError: unknown tier, speed, walk or device.
    """
    if tier not in TIERS or speed not in SPEEDS or walk not in WALKS:
        raise SettingError(
            f"Tiers are {', '.join(TIERS)}; speeds are {', '.join(SPEEDS[1:])}; walks are "
            f"{' and '.join(WALKS)}."
        )
    source, sha256 = resolve(source)
    texts = texts or Texts()
    texts.check()
    extras = extras or Extras()
    extras.check()
    versions = software()
    looked: list[Any] = [SCHEMA, sha256, CALIBRATION, texts.key, DTYPE, usable_cores()]
    device = promised()
    looked += [device] if device != "cpu" else []
    artefact = digest([looked, recipe.to_json(), walk])
    quality = digest([artefact, PROTOCOL, tier, *filter(None, [extras.key])])
    timed = digest([quality, speed, hardware_id(), versions])
    spec = {
        "run_id": timed,
        "model": source.to_json(),
        "model_sha256": sha256,
        "recipe": recipe.to_json(),
        "budget": budget or {},
        "predicted": predicted or {},
        "heavy": heavy,
        "tier": tier,
        "speed": speed,
        "calibration": CALIBRATION,
        "texts": texts.to_json(),
        "extras": extras.to_json(),
        "walk": walk,
        "device": device,
        "keys": {
            "statistics": digest(looked),
            "artefact": artefact,
            "quality": quality,
            "speed": timed,
        },
        "timeout_seconds": timeout_seconds,
        "memory_limit_bytes": memory_limit_bytes,
    }
    return Plan(timed, spec, source.name, recipe)


def resolve(source: ModelSource) -> tuple[ModelSource, str]:
    """A source pinned to what it is now, and a key of its content.

    Raises:
        ModelError: a folder holds no model, or the Hub does not know it, or cannot be asked and it
            was not fetched before.
    """
    if source.folder is not None:
        found = _fingerprint(source.folder, _newest(check_folder(source.folder)))
        if source.embedded and found != (EMBEDDED / "fingerprint").read_text().strip():
            raise ModelError(
                f"The files of the embedded model in {EMBEDDED} are not those that came with this "
                f"copy (SHA-256 {found[:12]}...); install it again."
            )
        return source, found
    if "/" not in source.name:  # the Hub may have another of this name
        raise ModelError(
            f"The model {source.name} was a folder that is not on this machine any more; write "
            "where it is now."
        )
    commit = hub.pinned(source)
    return ModelSource(source.name, None, commit), f"hub:{source.name}@{commit}"


@functools.cache
def _fingerprint(folder: Path, newest: float) -> str:  # noqa: ARG001 - a newer file, another key
    return fingerprint(folder)


def _newest(folder: Path) -> float:
    return max(path.stat().st_mtime for path in folder.iterdir())
