"""Finished runs: the index over `home/results/*.json`; the files themselves are the truth."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import duckdb

from backend.store.database import Database
from backend.store.documents import RUN_ID, check, read_document, write_checked
from backend.store.errors import ResultRefusedError
from backend.store.remembered import Remembered
from backend.store.rows import delete_rows, insert_rows

if TYPE_CHECKING:
    import pandas as pd

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """One number of a run, with its unit, its better side and how it came to be."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    direction: str
    kind: str
    samples: Any = None
    note: str = ""


@dataclass(frozen=True)
class Run:
    """One finished run whole, as its file has it."""

    run_id: str
    status: str
    created: str
    protocol: str
    model: dict[str, Any]
    recipe: str
    stages: list[dict[str, Any]]
    family: str
    budget: dict[str, Any]
    seconds: float
    readings: tuple[Reading, ...]
    generations: list[dict[str, Any]]
    layers: list[dict[str, Any]]
    notes: list[str]
    artefact: dict[str, Any]
    manifest: dict[str, Any]
    documents: dict[str, list[float]] = field(default_factory=dict)

    def reading(self, name: str) -> Reading | None:
        """The reading of that name, or None."""
        return next((one for one in self.readings if one.name == name), None)


@dataclass(frozen=True)
class Filter:
    """Which runs are meant; an empty tuple leaves that side open."""

    models: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    hardware: tuple[str, ...] = ()
    families: tuple[str, ...] = ()

    def bound(self) -> dict[str, list[str]]:
        """The same as named parameters of a query; half a pair of surrogates becomes `?`."""
        return {
            one.name: [each.encode("utf-8", "replace").decode() for each in getattr(self, one.name)]
            for one in fields(self)
        }


EVERYTHING = Filter()


@dataclass(frozen=True)
class Rebuilt:
    """How a rebuild went: runs indexed, and a sentence for each file left out."""

    runs: int
    refused: tuple[str, ...]


class Results:
    """Ask for finished runs, and add to them."""

    def __init__(self, database: Database):
        self._database = database
        self.folder = database.home / "results"
        self._version: tuple[int, tuple[Any, ...]] = (-1, ())
        self._rebuilds = 0
        self._rows = Remembered(self.version, self._runs)

    def add(self, document: Mapping[str, Any]) -> bool:
        """Keep a result, file first; False when its run was known already.

        Raises:
            ResultRefusedError: The document breaks its contract.
        """
        check(document)
        return self.add_checked([document])[0]

    def add_checked(self, documents: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Keep results that `check` has passed, all files first; whether each of them was new."""
        write_checked(self.folder, documents)
        with self._database.writing() as cursor:
            return [self.index(cursor, document) for document in documents]

    def renew(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Put results that `check` has passed in the place of those of the same runs.

        The rows go first and come again from the files, so that whenever this is broken off the
        next start finds what the files say.
        """
        run_ids = [document["run_id"] for document in documents]
        with self._database.writing() as cursor:
            delete_rows(cursor, run_ids)
            self._rebuilds += 1  # as many runs as before may be others
        try:
            write_checked(self.folder, documents, renew=True)
        finally:
            self.catch_up()

    def index(self, cursor: duckdb.DuckDBPyConnection, document: Mapping[str, Any]) -> bool:
        """Enter a checked document inside the caller's transaction; False when it is known."""
        run_id = document["run_id"]
        if cursor.execute("SELECT 1 FROM results WHERE run_id = ?", [run_id]).fetchone():
            return False
        insert_rows(cursor, document)
        return True

    def known(self, run_id: str) -> bool:
        """Whether a result of this run is at hand."""
        with self._database.reading() as cursor:
            row = cursor.execute("SELECT 1 FROM results WHERE run_id = ?", [run_id]).fetchone()
        return row is not None

    def count(self) -> int:
        """How many results are indexed."""
        with self._database.reading() as cursor:
            row = cursor.execute("SELECT count(*) FROM results").fetchone()
        return row[0] if row else 0

    def version(self) -> tuple[Any, ...]:
        """Equal as long as no run came, failed or is tried again; costs nothing meanwhile.

        First what stands for the finished runs alone.
        """
        commits = self._database.commits
        if self._version[0] != commits:
            with self._database.reading() as cursor:
                row = cursor.execute(
                    "SELECT (SELECT count(*) FROM results), count(*), max(revision) "
                    "FROM jobs WHERE state IN ('failed', 'timeout')"
                ).fetchone()
            runs, *others = row or (0,)
            self._version = commits, ((runs, self._rebuilds), *others)
        return self._version[1]

    def run(self, run_id: str) -> Run | None:
        """One run whole, or None where no sound file of it exists."""
        if not RUN_ID.fullmatch(run_id):
            return None
        try:
            document = read_document(self.folder / f"{run_id}.json")
        except (OSError, ResultRefusedError):
            return None
        return _run(document)

    def runs(
        self, chosen: Filter = EVERYTHING, metrics: Sequence[str] = (), failed: bool = False
    ) -> pd.DataFrame:
        """One row per run, newest first, with a column for the value of each named metric.

        A metric called like a column of the run itself stands in `<name>_reading`.
        With `failed`, attempts that ended without a result follow as rows of status `failed`
        or `timeout`, with their `reason`; their metrics are empty.
        """
        return self._rows(chosen, tuple(metrics), failed).copy()

    def _runs(self, chosen: Filter, metrics: tuple[str, ...], failed: bool) -> pd.DataFrame:
        with self._database.reading() as cursor:
            frame = cursor.execute(_RUNS, chosen.bound() | {"failed": failed}).df()
            values = cursor.execute(
                "SELECT run_id, name, value FROM readings "
                "WHERE list_contains($metrics::VARCHAR[], name)",
                {"metrics": list(metrics)},
            ).df()
        wide = values.pivot_table(index="run_id", columns="name", values="value")
        wide = wide.reindex(columns=list(metrics))
        wide.columns = [f"{name}_reading" if name in frame else name for name in metrics]
        return frame.join(wide, on="run_id")

    def readings(self, run_ids: Sequence[str] = ()) -> pd.DataFrame:
        """The long table of readings, of all runs or of the named ones."""
        with self._database.reading() as cursor:
            return cursor.execute(
                "SELECT * FROM readings WHERE len($run_ids::VARCHAR[]) = 0 "
                "OR list_contains($run_ids::VARCHAR[], run_id) ORDER BY run_id, name",
                {"run_ids": list(run_ids)},
            ).df()

    def generations(self, run_ids: Sequence[str] = ()) -> pd.DataFrame:
        """What the runs wrote: one row per run and prompt, in the order of the prompts."""
        with self._database.reading() as cursor:
            return cursor.execute(
                "SELECT run_id, position, prompt, text, tokens, first_divergence, gap "
                "FROM generations WHERE len($run_ids::VARCHAR[]) = 0 "
                "OR list_contains($run_ids::VARCHAR[], run_id) ORDER BY run_id, position",
                {"run_ids": list(run_ids)},
            ).df()

    def choices(self) -> pd.DataFrame:
        """Every model, protocol, hardware and family that occurs: its runs, and the newest's id."""
        with self._database.reading() as cursor:
            return cursor.execute(
                "SELECT model, protocol, hardware_id, family, count(*) AS runs, "
                "max_by(run_id, created) AS newest FROM results GROUP BY ALL ORDER BY ALL"
            ).df()

    def documents(self) -> Iterator[dict[str, Any]]:
        """Every sound result file, by run id; unsound ones are logged and left out."""
        for path in sorted(self.folder.glob("*.json")):
            try:
                yield read_document(path)
            except (OSError, ResultRefusedError) as error:
                LOGGER.warning("A result file was left out. %s", error)

    def rebuild(self) -> Rebuilt:
        """Make the index anew from the files, in one transaction."""
        with self._database.writing() as cursor:
            cursor.execute("DELETE FROM generations")
            cursor.execute("DELETE FROM readings")
            cursor.execute("DELETE FROM results")
            self._rebuilds += 1  # as many runs as before may be others
            return self._take_files(cursor, set())

    def catch_up(self) -> Rebuilt:
        """Index the files that are not yet: of a copied folder, or behind a log that was lost."""
        with self._database.writing() as cursor:
            known = cursor.execute("SELECT run_id FROM results").fetchall()
            return self._take_files(cursor, {run_id for (run_id,) in known})

    def _take_files(self, cursor: duckdb.DuckDBPyConnection, known: set[str]) -> Rebuilt:
        runs, refused = 0, []
        for path in sorted(self.folder.glob("*.json")):
            if path.stem in known:
                continue
            try:
                document = read_document(path)
            except (OSError, ResultRefusedError) as error:
                refused.append(str(error))
                continue
            self.index(cursor, document)
            runs += 1
        return Rebuilt(runs, tuple(refused))


_RUNS = """
SELECT run_id, model, recipe, family, status, hardware_id, protocol, created, seconds,
       budget::VARCHAR AS budget, '' AS reason
FROM results
WHERE (len($models::VARCHAR[]) = 0 OR list_contains($models::VARCHAR[], model))
  AND (len($protocols::VARCHAR[]) = 0 OR list_contains($protocols::VARCHAR[], protocol))
  AND (len($hardware::VARCHAR[]) = 0 OR list_contains($hardware::VARCHAR[], hardware_id))
  AND (len($families::VARCHAR[]) = 0 OR list_contains($families::VARCHAR[], family))
UNION ALL
SELECT run_id, model, recipe, family, state, '', '',
       strftime(make_timestamp((created * 1e6)::BIGINT), '%Y-%m-%dT%H:%M:%S+00:00'),
       coalesce(ended - started, 0), '{}', reason
FROM jobs
WHERE $failed AND state IN ('failed', 'timeout')
  AND run_id NOT IN (SELECT run_id FROM results)
  AND (len($models::VARCHAR[]) = 0 OR list_contains($models::VARCHAR[], model))
  AND (len($families::VARCHAR[]) = 0 OR list_contains($families::VARCHAR[], family))
ORDER BY created DESC, run_id
"""


def _run(document: Mapping[str, Any]) -> Run:
    values = {one.name: document[one.name] for one in fields(Run) if one.name in document}
    names = {one.name for one in fields(Reading)}
    values["readings"] = tuple(
        Reading(**{"low": None, "high": None} | {k: v for k, v in one.items() if k in names})
        for one in document["readings"]
    )
    return Run(**values)
