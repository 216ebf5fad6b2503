"""Carry results from one copy of the program to another, through a plain folder or a zip of it.

The JSON files are what an import reads; the Parquet tables beside them are for other programs.
Every run keeps the id of the hardware it was measured on, so nothing measured elsewhere passes
for a measurement made here.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backend.store.documents import SIZE_LIMIT, read_document
from backend.store.errors import ResultRefusedError, StoreError
from backend.store.results import Results
from backend.store.shares import Shares

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
TOGETHER = 64
"""Results that are taken in at once: a disk and a database take many in the time of one."""
_MANIFEST = "manifest.json"
_RESULT = re.compile(r"results/[0-9a-f]{16}\.json")


@dataclass(frozen=True)
class Imported:
    """What an import brought: new runs, runs known already, and why any was refused."""

    added: tuple[str, ...]
    known: tuple[str, ...]
    conflicting: tuple[str, ...]
    refused: tuple[str, ...]

    def __add__(self, other: Imported) -> Imported:
        """What both brought."""
        return Imported(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def export_results(
    results: Results, shares: Shares, folder: Path, run_ids: Sequence[str] = ()
) -> int:
    """Write all results, or the named ones, and the shared views; return the number of runs."""
    target = folder / "results"
    target.mkdir(parents=True, exist_ok=True)
    wanted = set(run_ids)
    written = []
    for document in results.documents():
        run_id = document["run_id"]
        if not wanted or run_id in wanted:
            shutil.copyfile(results.folder / f"{run_id}.json", target / f"{run_id}.json")
            written.append(run_id)
    runs = results.runs()
    tables = {
        "runs": runs[runs["run_id"].isin(written)],
        "readings": _rows_of(results.readings(written), written),
        "generations": _rows_of(results.generations(written), written),
    }
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
    manifest = {"format": FORMAT, "runs": written, "shares": shares.all()}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return len(written)


def import_results(results: Results, shares: Shares, folder: Path) -> Imported:
    """Add the results of an exported folder or zip; doing it again changes nothing.

    A run that is known here stays as it is, and is listed as conflicting where the two differ.

    Raises:
        StoreError: The folder holds no export that this version can read, or the zip is damaged.
    """
    found = Imported((), (), (), ())
    with _unpacked(folder) as place:
        manifest = _read_manifest(place, folder)
        paths = sorted((place / "results").glob("*.json"))
        for start in range(0, len(paths), TOGETHER):
            found += _import_some(results, paths[start : start + TOGETHER])
    for query in manifest["shares"]:
        shares.keep(query)
    return found


def _import_some(results: Results, paths: Sequence[Path]) -> Imported:
    documents, refused = [], []
    for path in paths:
        try:
            documents.append(read_document(path))
        except (OSError, ResultRefusedError) as error:
            refused.append(str(error))
    added, known, conflicting = [], [], []
    for document, new in zip(documents, results.add_checked(documents), strict=True):
        run_id = document["run_id"]
        (added if new else known).append(run_id)
        if not new and read_document(results.folder / f"{run_id}.json") != document:
            conflicting.append(run_id)
    return Imported(tuple(added), tuple(known), tuple(conflicting), tuple(refused))


@contextmanager
def _unpacked(folder: Path) -> Iterator[Path]:
    """A folder as it is; of a zip what an import reads, in a folder that is gone afterwards."""
    if not zipfile.is_zipfile(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        try:
            with zipfile.ZipFile(folder) as packed:
                for one in packed.infolist():
                    if one.filename == _MANIFEST or _RESULT.fullmatch(one.filename):
                        _extract(packed, one, place)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise StoreError(f"{folder} is damaged or has a password: {error}.") from None
        yield Path(place)


def _extract(packed: zipfile.ZipFile, one: zipfile.ZipInfo, place: str) -> None:
    if one.file_size > SIZE_LIMIT:
        raise StoreError(
            f"{one.filename} holds {one.file_size:,} bytes; a result file may hold {SIZE_LIMIT:,}."
        )
    packed.extract(one, place)


def _read_manifest(place: Path, folder: Path) -> dict:
    try:
        manifest = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise StoreError(f"{folder} holds no exported results.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{folder} was exported in a format this version does not read.")
    return {"shares": [one for one in manifest.get("shares", []) if isinstance(one, dict)]}


def _rows_of(table: pd.DataFrame, run_ids: Sequence[str]) -> pd.DataFrame:
    """An empty choice means all rows to a query, but none to an export."""
    return table[table["run_id"].isin(run_ids)]
