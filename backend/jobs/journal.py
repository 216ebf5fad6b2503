"""Take the stream of an attempt into the database, and conclude jobs from it.

A slice of the stream, the offset behind it and all that follows from it are one transaction, so
a slice is never taken in twice and never lost.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from backend.faults import fault_point
from backend.jobs import runner
from backend.jobs.records import Job
from backend.jobs.states import Move, after
from backend.jobs.stream import ProtocolError, parse
from backend.store.documents import read_document, write_document
from backend.store.errors import ResultRefusedError
from backend.store.store import Store

Cursor = duckdb.DuckDBPyConnection

_LOSSES = (runner.CANCELLED, runner.INTERRUPTED, runner.SERVER_DIED)
_INTERRUPTED = "It was interrupted and will be tried again."  # and that attempt does not count
_INTERRUPTIONS = (runner.CANCELLED, runner.INTERRUPTED)  # stopped, but not by a person's wish


class Journal:
    """Write what attempts report; the ledger decides when."""

    def __init__(self, store: Store):
        self._store = store

    def ingest(self, job: Job, chunk: bytes) -> None:
        """Take in whole lines of the current attempt's stream, its end included if it is there."""
        try:
            events = [parse(line) for line in chunk.rstrip(b"\n").split(b"\n")]
        except ProtocolError as error:
            with self._store.database.writing() as cursor:
                _close(cursor, job, Move.FAIL, f"The stream is damaged: {error}.")
            return
        ended = events[-1] if events[-1]["kind"] == "exit" else None
        document, problem = None, ""
        if ended:
            document, problem = self._result(job, self._latest(job, "result", events))
        with self._store.database.writing() as cursor:
            job = _with_wish(cursor, job)
            _insert_events(cursor, job, events)
            fault_point("journal.ingest")
            _update_progress(cursor, job, events, len(chunk))
            if ended is None:
                return
            if document is not None:
                self._store.results.index(cursor, document)
                _close(cursor, job, Move.FINISH, "")
                return
            error = self._latest(job, "error", events)
            _close(cursor, job, *_verdict(job, ended["data"], problem, error))

    def lose(self, job: Job) -> None:
        """Conclude an attempt whose runner is gone and left no end."""
        document, _ = self._result(job, self._latest(job, "result", ()))
        if document is not None:
            with self._store.database.writing() as cursor:
                self._store.results.index(cursor, document)
                _close(cursor, job, Move.FINISH, "")
            return
        with self._store.database.writing() as cursor:
            job = _with_wish(cursor, job)
            _close(cursor, job, *_loss(job, "its supervisor died"))

    def log_tail(self, job: Job) -> str:
        """The end of the log as the attempt's last event has it."""
        data = self._latest(job, "exit", ())
        return data.get("log_tail", "") if data else ""

    def _latest(
        self, job: Job, kind: str, events: Sequence[dict[str, Any]]
    ) -> dict[str, Any] | None:
        for event in reversed(events):
            if event["kind"] == kind:
                return event["data"]
        with self._store.database.reading() as cursor:
            row = cursor.execute(
                "SELECT data FROM events WHERE job_id = ? AND attempt = ? AND kind = ? "
                "ORDER BY number DESC LIMIT 1",
                [job.job_id, job.attempt, kind],
            ).fetchone()
        return json.loads(row[0]) if row else None

    def _result(self, job: Job, event: dict[str, Any] | None) -> tuple[dict[str, Any] | None, str]:
        """The document that a `result` event holds or points to, in its place; or what is wrong."""
        if event is None:
            return None, ""
        if isinstance(event.get("document"), dict):
            return self._kept(job, event["document"])
        home = self._store.home.resolve()
        kept = (home / "results").resolve()  # may be a link to where results stay
        path = (home / Path(str(event.get("path", "")))).resolve()
        if not path.is_relative_to(home) and path.parent != kept:
            return None, "The result lies outside the home folder."
        try:
            document = read_document(path)
            if path.parent == kept and document["run_id"] == job.run_id:
                return document, ""
            return self._kept(job, document)
        except (OSError, ResultRefusedError) as error:
            return None, f"The result cannot be used: {error}"

    def _kept(self, job: Job, document: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
        """A document from elsewhere, written to its place once it is found to be whole."""
        if document.get("run_id") != job.run_id:
            return None, f"The result is of another run, {document.get('run_id')}."
        try:
            return read_document(write_document(self._store.results.folder, document)), ""
        except (OSError, ResultRefusedError) as error:
            return None, f"The result cannot be used: {error}"


def _insert_events(cursor: Cursor, job: Job, events: Sequence[dict[str, Any]]) -> None:
    cursor.execute(
        "INSERT INTO events SELECT ?, unnest(?::BIGINT[]), ?, unnest(?::BIGINT[]), "
        "unnest(?::DOUBLE[]), unnest(?::VARCHAR[]), unnest(?::JSON[])",
        [
            job.job_id,
            [job.event_count + position for position in range(1, len(events) + 1)],
            job.attempt,
            [event["seq"] for event in events],
            [event["time"] for event in events],
            [event["kind"] for event in events],
            [json.dumps(event["data"]) for event in events],
        ],
    )


def _update_progress(cursor: Cursor, job: Job, events: Sequence[dict[str, Any]], size: int) -> None:
    stage, done, total = job.stage, job.done, job.total
    for event in events:
        if event["kind"] == "progress":
            data = event["data"]
            stage = str(data.get("stage") or "")
            done, total = _number(data.get("done")), _number(data.get("total"))
    cursor.execute(
        "UPDATE jobs SET stage = ?, done = ?, total = ?, stream_offset = ?, event_count = ?, "
        "revision = (SELECT max(revision) + 1 FROM jobs) WHERE job_id = ?",
        [
            *(stage, done, total),
            *(job.stream_offset + size, job.event_count + len(events), job.job_id),
        ],
    )


def _close(cursor: Cursor, job: Job, move: Move, reason: str) -> None:
    ended = None if move is Move.LOSE else time.time()
    cursor.execute(
        "UPDATE jobs SET state = ?, reason = ?, ended = ?, "
        "max_attempts = max_attempts + (CASE WHEN ? THEN 1 ELSE 0 END), "
        "revision = (SELECT max(revision) + 1 FROM jobs) WHERE job_id = ?",
        [after(job.state, move), reason, ended, reason == _INTERRUPTED, job.job_id],
    )


def _with_wish(cursor: Cursor, job: Job) -> Job:
    """The job as it is at hand, but with the latest word on whether somebody wants it stopped."""
    row = cursor.execute("SELECT cancel FROM jobs WHERE job_id = ?", [job.job_id]).fetchone()
    return replace(job, cancel=bool(row and row[0]))


def _verdict(
    job: Job, ended: dict[str, Any], problem: str, error: dict[str, Any] | None
) -> tuple[Move, str]:
    """What an end without a usable result means, and the sentence for it."""
    reason = str(ended.get("reason"))
    if reason == runner.TIMEOUT:
        return Move.EXPIRE, f"Stopped after {ended.get('seconds', 0):,.0f} seconds, its limit."
    if reason == runner.SILENT:
        return Move.EXPIRE, "Stopped: its process gave no sign of life for too long."
    if reason in _LOSSES:
        return _loss(job, reason)
    if reason == runner.OK:
        return Move.FAIL, problem or "It ended without a result."
    if error and reason == "exit code 1":
        told = "" if error.get("user_facing") else f"{error.get('type')}: "
        return Move.FAIL, f"{told}{error.get('message')}"
    return Move.FAIL, reason


def _loss(job: Job, cause: str) -> tuple[Move, str]:
    if job.cancel:
        return Move.CANCEL, "cancelled"
    if cause in _INTERRUPTIONS:
        return Move.LOSE, _INTERRUPTED
    if job.attempt >= job.max_attempts:
        return Move.FAIL, f"Given up after {job.attempt} attempts: {cause}."
    return Move.LOSE, f"Attempt {job.attempt} was lost ({cause}); it will be tried again."


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
