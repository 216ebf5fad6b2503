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
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from backend.store.documents import SIZE_LIMIT, read_document
from backend.store.errors import ResultRefusedError, StoreError
from backend.store.results import Results
from backend.store.shares import Shares

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
UNPACKED_LIMIT = 4 * 2**30
"""Bytes that what is read of a zip may take on the disk, all together."""
TOGETHER = 64
"""Results that are taken in at once: a disk and a database take many in the time of one."""
MANIFEST = "manifest.json"
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
    written, whole = [], sha256()
    for document in results.documents():
        run_id = document["run_id"]
        if not wanted or run_id in wanted:
            shutil.copyfile(results.folder / f"{run_id}.json", target / f"{run_id}.json")
            whole.update((target / f"{run_id}.json").read_bytes())
            written.append(run_id)
    runs = results.runs()
    tables = {
        "runs": runs[runs["run_id"].isin(written)],
        "readings": _rows_of(results.readings(written), written),
        "generations": _rows_of(results.generations(written), written),
    }
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
    manifest = {
        "format": FORMAT,
        "digest": whole.hexdigest(),  # so that a manifest is another where any document is
        "runs": written,
        "shares": shares.all(),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return len(written)


def import_results(results: Results, shares: Shares, folder: Path, called: str = "") -> Imported:
    """Add the results of an exported folder or zip; doing it again changes nothing.

    A run that is known here stays as it is, and is listed as conflicting where the two differ.

    Args:
        results: where runs go.
        shares: where shared views go.
        folder: an exported folder, or a zip of it.
        called: what messages call it, if not by its path.

    Raises:
        StoreError: The folder holds no export that this version can read, or the zip is damaged.
    """
    found, called = Imported((), (), (), ()), called or str(folder)
    with _unpacked(folder, called) as place:
        views = _read_views(place, called)
        paths = sorted((place / "results").glob("*.json"))
        for start in range(0, len(paths), TOGETHER):
            found += _import_some(results, paths[start : start + TOGETHER])
    for view in views:
        with suppress(StoreError):  # what no copy would keep is no reason to refuse the runs
            shares.keep(view)
    return found


def _import_some(results: Results, paths: Sequence[Path]) -> Imported:
    documents, refused = [], []
    for path in paths:
        try:
            documents.append(read_document(path))
        except (OSError, ResultRefusedError) as error:
            told = str(error)
            refused.append(told if path.name in told else f"{path.name}: {told}")
    added, known, conflicting = [], [], []
    for document, new in zip(documents, results.add_checked(documents), strict=True):
        run_id = document["run_id"]
        (added if new else known).append(run_id)
        if not new and read_document(results.folder / f"{run_id}.json") != document:
            conflicting.append(run_id)
    return Imported(tuple(added), tuple(known), tuple(conflicting), tuple(refused))


@contextmanager
def _unpacked(folder: Path, called: str) -> Iterator[Path]:
    """A folder as it is; of a zip what an import reads, in a folder that is gone afterwards."""
    if not zipfile.is_zipfile(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        try:
            with zipfile.ZipFile(folder) as packed:
                wanted = [one for one in packed.infolist() if _is_read(one.filename)]
                _check_sizes(wanted, called)
                packed.extractall(place, wanted)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise StoreError(f"{called} is damaged or has a password: {error}.") from None
        yield Path(place)


def _is_read(name: str) -> bool:
    return name == MANIFEST or _RESULT.fullmatch(name) is not None


def _check_sizes(wanted: Sequence[zipfile.ZipInfo], called: str) -> None:
    """Pass entries of sizes that may be unpacked; more than an entry says is never unpacked."""
    for one in wanted:
        if one.file_size > SIZE_LIMIT:
            raise StoreError(
                f"{one.filename} holds {one.file_size:,} bytes; a result file may hold "
                f"{SIZE_LIMIT:,}."
            )
    if (total := sum(one.file_size for one in wanted)) > UNPACKED_LIMIT:
        raise StoreError(
            f"{called} holds {total:,} bytes of results; {UNPACKED_LIMIT:,} are taken in at once, "
            "so export fewer runs at a time."
        )


def _read_views(place: Path, called: str) -> list[dict]:
    """The shared views of an export's manifest."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise StoreError(f"{called} holds no exported results.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{called} was exported in a format this version does not read.")
    views = manifest.get("shares")
    return [one for one in views if isinstance(one, dict)] if isinstance(views, list) else []


def _rows_of(table: pd.DataFrame, run_ids: Sequence[str]) -> pd.DataFrame:
    """An empty choice means all rows to a query, but none to an export."""
    return table[table["run_id"].isin(run_ids)]
