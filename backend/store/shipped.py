"""Results that came with the program: a home takes them in, and newer ones in their place.

Beside the results lies what was taken in: of the release its manifest, of each run its file, both
as SHA-256. So a run that a release brought is known from one that was made here or came from
elsewhere, and a start that finds the same manifest compares nothing else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from backend.store.documents import read_document, write_whole
from backend.store.exchange import MANIFEST, TOGETHER, import_results
from backend.store.store import Store

LOGGER = logging.getLogger(__name__)
RECORD = "shipped"
"""Name of the file in `home/results`, where it stays with them; no `.json`, for it is no result."""


@dataclass(frozen=True)
class Record:
    """What a home has taken in: digest of the manifest, and of each run's file by its id."""

    manifest: str
    runs: Mapping[str, str]


def take_shipped(store: Store, folder: Path, *, always: bool = False) -> tuple[str, ...]:
    """Take in the results of an exported folder that came along; which runs were renewed.

    An empty home takes all. One that has taken some takes those that it lacks, and a newer result
    in the place of one that was taken, by `created`; nothing that a job of this home made or that
    was imported is touched. Of a home that kept no record only its jobs tell. Broken off at any
    moment, the next start goes on.

    Args:
        store: of the home, which is this process's alone.
        folder: what came along; without a manifest nothing is taken.
        always: also into a home of other results.

    Raises:
        StoreError: The folder holds no export that this version can read.
        OSError: A file of a run that was not there yet could not be written.
    """
    try:
        manifest = _digest(folder / MANIFEST)
    except OSError:
        return ()
    place, results = store.home / "results" / RECORD, store.results
    before = _read(place)
    count = results.count()
    if count and before is not None and before.manifest == manifest:
        return ()
    renewed: tuple[str, ...] = ()
    taken = dict(before.runs) if before else {}
    if always or not count or taken or _holds_any(store, folder):
        found = import_results(results, store.shares, folder)
        renewed = tuple(_newer(store, folder, found.conflicting, before))
        try:
            for start in range(0, len(renewed), TOGETHER):
                some = renewed[start : start + TOGETHER]
                results.renew([read_document(_file(folder / "results", one)) for one in some])
        except OSError as error:  # a full disk is no reason not to start with what there is
            LOGGER.warning("Newer results that came along were left for the next start. %s", error)
            return ()
        same = {*found.added, *found.known} - ({*found.conflicting} - {*renewed})
        taken |= {one: _digest(_file(results.folder, one)) for one in sorted(same)}
    results.folder.mkdir(parents=True, exist_ok=True)
    write_whole(place, json.dumps({"manifest": manifest, "runs": taken}, indent=0))
    return renewed


def _newer(
    store: Store, folder: Path, differing: Iterable[str], before: Record | None
) -> list[str]:
    """Those of the runs that differ whose own file was shipped, and is older."""
    made = _made_here(store)
    found = []
    for run_id in differing:
        here = _file(store.results.folder, run_id)
        if run_id in made or (before and before.runs.get(run_id) != _digest(here)):
            continue
        if _created(here) < _created(_file(folder / "results", run_id)):
            found.append(run_id)
    return found


def _made_here(store: Store) -> set[str]:
    """Runs that a job of this home made, or is about to."""
    with store.database.reading() as cursor:
        rows = cursor.execute(
            "SELECT DISTINCT run_id FROM jobs WHERE state IN ('queued', 'running', 'done')"
        ).fetchall()
    return {run_id for (run_id,) in rows}


def _holds_any(store: Store, folder: Path) -> bool:
    return any(store.results.known(path.stem) for path in (folder / "results").glob("*.json"))


def _created(path: Path) -> datetime:
    return datetime.fromisoformat(read_document(path)["created"])


def _file(folder: Path, run_id: str) -> Path:
    return folder / f"{run_id}.json"


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> Record | None:
    """The record that lies there; None where there is none that can be read."""
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        return Record(str(record["manifest"]), dict(record["runs"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
