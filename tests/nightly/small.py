"""The attempt of the long tests: small work in the real worker, ended by a sound result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from backend.jobs.stream import Emit
from backend.recipes import Recipe
from backend.store.documents import write_document
from tests.page_results import result

STEPS = 3


def run(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    """Report some steps and write a result whose numbers are drawn from the run's id."""
    home = folder.parents[1]
    pace = home / "pace"
    pause = float(pace.read_text()) if pace.exists() else 0.0
    for done in range(1, STEPS + 1):
        emit("progress", {"stage": "working", "done": done, "total": STEPS})
        time.sleep(pause)
    chance = int(spec["run_id"], 16) / 16**16
    size, distance = 400_000 + 1_300_000 * chance, 3 * (1 - chance) ** 2 + 0.001
    recipe = Recipe.from_json(spec["recipe"])
    document = result(spec["run_id"], recipe.text(), recipe.family, (size, distance, 1 + chance))
    path = write_document(home / "results", document)
    emit("result", {"run_id": spec["run_id"], "path": str(path)})
