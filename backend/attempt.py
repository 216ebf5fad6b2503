"""What worker processes do of a job, one each: fetch the model, compress it, measure the artefact.

They share nothing but what lies on disk, and only the first may use the network.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from backend import hub, shelf
from backend.appraise import Appraisal, Order
from backend.compress import compress
from backend.dimensions import Dimensions
from backend.errors import DataError
from backend.extras import Extras
from backend.faults import fault_point
from backend.jobs.confinement import confine
from backend.measure.hardware import (
    commit,
    hardware,
    hardware_id,
    host_load,
    software,
    usable_cores,
)
from backend.measure.quiet import Quiet
from backend.measure.reading import PROTOCOL, Reading, take
from backend.measure.size import watch_peak
from backend.measure.threads import quickest_threads
from backend.models import artefact, observing, precision
from backend.models.load import LoadedModel, load
from backend.models.place import Place, choose
from backend.recipes import Recipe
from backend.sizes import size_of
from backend.sources import ModelSource
from backend.store.documents import SCHEMA, write_document
from backend.texts import Document, Texts

ARTEFACTS = 100 * 10**9  # bytes of all that are kept, unless a job says less
IDLE = 3600  # seconds after which an artefact may make room

Emit = Callable[[str, dict[str, Any]], None]
Progress = Callable[[str, int, int], None]


def run_fetch(spec: dict[str, Any], _: Path, emit: Emit) -> None:
    """Bring the model's files here, unless they are; reads none of them."""
    fault_point("fetch.begin")
    source = ModelSource.from_json(spec["model"])
    if source.folder is None:
        _progress(emit)("download", 0, 1)
        confine(None, hub.room())  # whatever is said of its size, no file grows beyond
        hub.fetch(source)


def run_compress(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    """Make the artefact of a job, unless it is there already.

    Args:
        spec: as `backend.plan` writes it.
        folder: of the attempt, below `home/attempts`.
        emit: where progress goes.
    """
    torch.set_num_threads(usable_cores())
    target = _artefact(spec, folder)
    if (target / "compress.json").is_file():
        shelf.used(target)
        emit("log", {"text": "This artefact was made before; it is used again."})
        return
    shutil.rmtree(target, ignore_errors=True)
    source, recipe = _source(spec), Recipe.from_json(spec["recipe"])
    progress = _progress(emit)
    began = time.perf_counter()
    progress("load", 0, 1)
    place = _place(spec, source)
    if place.reason:
        emit("log", {"text": place.reason})
    loaded = _computable(source, place)
    _check_reach(recipe, loaded)
    windows = calibration_windows(
        loaded, Texts.from_json(spec["texts"]).calibration, **spec["calibration"]
    )
    cache = _home(folder) / "cache"
    remarks: list[str] = []
    artefact_folder = target

    def make(loaded: LoadedModel, recipe: Recipe, target: Path) -> None:
        finished = target.with_name(f"{target.name}.blocks")
        result = compress(
            loaded,
            recipe,
            windows,
            holding(progress, artefact_folder, finished),
            checkpoint=finished,
            parallel=spec["walk"] == "parallel",
            statistics=cache / "statistics" / spec["keys"]["statistics"],
            levels=cache / "levels",
        )
        tables = observing.learned(recipe, result.view.model, windows)
        progress("save", 0, 1)
        precision.recast(result.view.model, precision.DEPLOYED)
        artefact.save(result.view, loaded, recipe, result.structure, target, tables=tables)
        remarks.extend(result.remarks)

    quiet = Quiet(cache / "dense")
    with quiet.alone() if spec["heavy"] else quiet.shared(), watch_peak(place.device) as peak:
        make(loaded, recipe, target)
        del loaded
        if draft := recipe.draft():
            make(_computable(source, place), draft, target / artefact.DRAFT)
    taken = {
        "seconds": time.perf_counter() - began,
        "peak_bytes": peak.bytes,
        "remarks": remarks,
        "calibration": spec["calibration"],
    }
    fault_point("artefact.done")
    (target / "compress.json").write_text(json.dumps(taken))
    shelf.tidy(target.parent, int(spec.get("artefacts_limit_bytes", ARTEFACTS)), IDLE)


def run_measure(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    """Measure the artefact of a job and write the result document."""
    torch.set_num_threads(quickest_threads(usable_cores()))
    home = _home(folder)
    target = _artefact(spec, folder)
    shelf.used(target)  # it may have waited long, and measuring reads it more than once
    source, recipe = _source(spec), Recipe.from_json(spec["recipe"])
    order = Order(
        target,
        source,
        recipe,
        spec["tier"],
        spec["speed"],
        home / "cache" / "dense",
        spec["model_sha256"],
        Texts.from_json(spec["texts"]),
        spec["heavy"],
        Extras.from_json(spec.get("extras", {})),
        _place(spec, source),
    )
    began = time.perf_counter()

    def report(found: list[Reading]) -> None:
        for one in found:
            emit("reading", one.to_json())

    appraisal = Appraisal(order, report, _progress(emit))
    appraisal.run()
    made = json.loads((target / "compress.json").read_text())
    appraisal.readings += take("compress_s", made["seconds"], samples=1)
    appraisal.readings += take("compress_peak", made["peak_bytes"], samples=1)
    for name, (value, low, high) in spec["predicted"].items():
        appraisal.readings += take(name, value, low, high, kind="estimated")
    appraisal.notes += [*made["remarks"], *filter(None, [order.place.reason])]
    document = _document(spec, order, appraisal, made["seconds"] + time.perf_counter() - began)
    path = write_document(home / "results", document)
    emit("result", {"run_id": spec["run_id"], "path": str(path)})


def _check_reach(recipe: Recipe, loaded: LoadedModel) -> None:
    """Refuse at once what a model from elsewhere could not be asked before it came.

    Raises:
        ParetoscopeError: a stage cannot treat this model, or not in so little.
    """
    dimensions = Dimensions.of(replace(loaded.source, folder=loaded.folder))
    assert dimensions is not None, "a model that is loaded has files"
    size_of(recipe, dimensions)


def _place(spec: dict[str, Any], source: ModelSource) -> Place:
    recipe = Recipe.from_json(spec["recipe"])
    wish = spec.get("device", "cpu")
    return choose(wish, source.parameters(), gradients=recipe.keeps_gradients)


def _computable(source: ModelSource, place: Place) -> LoadedModel:
    """The model as it is deployed, in the type in which and at the place where it is computed."""
    loaded = load(source, precision.DEPLOYED)
    precision.recast(loaded.model, place.computing_dtype(loaded.parameters))
    place.put(loaded.model)
    return loaded


def calibration_windows(
    loaded: LoadedModel, documents: list[Document], windows: int, length: int
) -> torch.Tensor:
    """Calibration tokens [windows, length]: documents one after another, each opened.

    Raises:
        DataError: the calibration text is too short.
    """
    stream: list[int] = []
    for _, _, text in documents:
        stream += loaded.open(text)
    count = min(windows, len(stream) // length)
    if count < 1:
        raise DataError(
            f"The calibration text has {len(stream)} tokens; one window takes {length}."
        )
    return torch.tensor(stream[: count * length]).view(count, length)


def _document(
    spec: dict[str, Any], order: Order, appraisal: Appraisal, seconds: float
) -> dict[str, Any]:
    facts = hardware(order.place.kind)
    below = order.artefact
    files = sorted(str(path.relative_to(below)) for path in below.rglob("*") if path.is_file())
    return {
        "schema": SCHEMA,
        "run_id": spec["run_id"],
        "status": "broken" if appraisal.broken else "done",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "protocol": _protocol(spec, order.texts),
        "model": {
            "name": order.source.name,
            "source": "embedded" if order.source.embedded else spec["model"]["folder"] or "hub",
            "revision": order.source.revision,
            "sha256": order.fingerprint,
            "parameters": order.source.parameters(),
        },
        "recipe": order.recipe.text(),
        "stages": order.recipe.to_json()["stages"],
        "family": order.recipe.family,
        "budget": spec["budget"],
        "seconds": seconds,
        "readings": [one.to_json() for one in appraisal.readings],
        "generations": appraisal.generations,
        "layers": appraisal.layers,
        "documents": appraisal.documents,
        "notes": appraisal.notes,
        "artefact": {
            "key": spec["keys"]["artefact"],
            "files": files,
            "bytes": sum((below / name).stat().st_size for name in files),
            **{f"{name}_kind": kind for name, kind in appraisal.kinds.items()},
        },
        "manifest": {
            "hardware": facts,
            "hardware_id": hardware_id(facts),
            "software": software() | {"commit": commit()},
            "host": host_load(),
            "threads": torch.get_num_threads(),
            "device": order.place.to_json(),
            "keys": spec["keys"],
            "calibration": spec["calibration"],
            "texts": spec["texts"],
            "evaluation": {"tier": spec["tier"], "key": appraisal.evaluation.key},
            "allocator": order.recipe.allocator,
        },
    }


def _protocol(spec: dict[str, Any], read: Texts) -> str:
    """What must be the same for two runs to stand on one frontier: definitions, tier, text."""
    own = f" {read.key[:8]}" if read != Texts() else ""
    return f"{PROTOCOL} {spec['tier']}{own}"


def _progress(emit: Emit) -> Progress:
    def tell(stage: str, done: int, total: int) -> None:
        emit("progress", {"stage": stage, "done": done, "total": total})

    return tell


def holding(progress: Progress, *folders: Path) -> Progress:
    """The same, and with each step note that folders are in use: others make room meanwhile."""

    def tell(stage: str, done: int, total: int) -> None:
        for folder in folders:
            shelf.used(folder)
        progress(stage, done, total)

    return tell


def _source(spec: dict[str, Any]) -> ModelSource:
    """The model of a job as a folder on this machine."""
    source = ModelSource.from_json(spec["model"])
    if source.folder is None:
        return ModelSource(source.name, hub.fetched(source), source.revision)
    return source


def _home(folder: Path) -> Path:
    return folder.parents[1]


def _artefact(spec: dict[str, Any], folder: Path) -> Path:
    return _home(folder) / "artefacts" / spec["keys"]["artefact"]
