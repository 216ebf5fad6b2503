"""Read jobs from the database; the statements that both the ledger's answers and moves need."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection

import duckdb

from backend.jobs.errors import UnknownJobError
from backend.jobs.records import Job, Outcome, Submission
from backend.jobs.states import ACTIVE, State

Cursor = duckdb.DuckDBPyConnection

# Whose turn: the higher priority first, then the owner served longest ago, then the older job.
NEXT = """
WITH load AS (
    SELECT owner, count(*) FILTER (state = 'running') AS running,
           coalesce(max(started), 0) AS served
    FROM jobs GROUP BY owner
)
SELECT jobs.* FROM jobs JOIN load USING (owner)
WHERE state = 'queued' AND running < $owner_slots
  AND (SELECT count(*) FROM jobs WHERE state = 'running') < $slots
ORDER BY priority DESC, served, created, job_id
LIMIT 1
"""


def next_in_turn(cursor: Cursor, slots: int, owner_slots: int) -> Job | None:
    """The job whose turn it is, or None when no slot is free or nobody may use it."""
    found = fetch(cursor.execute(NEXT, {"slots": slots, "owner_slots": owner_slots}))
    return found[0] if found else None


def counted(cursor: Cursor, owner: str, states: Collection[State]) -> tuple[int, int]:
    """How many jobs stand in one of these states, altogether and of one owner."""
    row = cursor.execute(
        "SELECT count(*), count(*) FILTER (owner = $owner) FROM jobs WHERE state IN $states",
        {"owner": owner, "states": [str(state) for state in states]},
    ).fetchone()
    return row or (0, 0)


def known(cursor: Cursor, run_id: str) -> Submission | None:
    """The answer to a submission of a run that is under way or finished, else None."""
    row = cursor.execute(
        "SELECT job_id FROM jobs WHERE run_id = ? AND state IN (?, ?)",
        [run_id, *ACTIVE],
    ).fetchone()
    if row:
        return Submission(run_id, row[0], Outcome.JOINED)
    if not cursor.execute("SELECT 1 FROM results WHERE run_id = ?", [run_id]).fetchone():
        return None
    row = cursor.execute(
        "SELECT job_id FROM jobs WHERE run_id = ? AND state = ? ORDER BY created DESC LIMIT 1",
        [run_id, State.DONE],
    ).fetchone()
    return Submission(run_id, row[0] if row else "", Outcome.CACHED)


def find(cursor: Cursor, job_id: str) -> Job:
    """One job.

    Raises:
        UnknownJobError: There is no such job.
    """
    found = fetch(cursor.execute("SELECT * FROM jobs WHERE job_id = ?", [job_id]))
    if not found:
        raise UnknownJobError(f"There is no job {job_id[:40]}.")
    return found[0]


def fetch(cursor: Cursor) -> list[Job]:
    """The jobs that a statement over whole rows of `jobs` has found."""
    names = [column[0] for column in cursor.description or ()]
    rows = (dict(zip(names, row, strict=True)) for row in cursor.fetchall())
    return [
        Job(**row | {"spec": json.loads(row["spec"]), "state": State(row["state"])}) for row in rows
    ]


def time_ordered_id() -> str:
    """32 hexadecimal digits: milliseconds since 1970, then chance."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
