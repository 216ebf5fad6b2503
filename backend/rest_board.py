"""The list of jobs as visitors see it, held in memory: read from the store only what changed.

Every open page asks for it each second, so it must cost nothing while nothing happens.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from backend.jobs.records import Job
from backend.jobs.states import ACTIVE
from backend.service import Service

SHOWN = (
    *("job_id", "run_id", "model", "recipe", "family", "state", "active", "stage", "done"),
    *("total", "attempt", "created", "started", "ended", "reason"),
)
"""What anybody may know of a job."""


@dataclass(frozen=True)
class Entry:
    """One job for the list; whose it is decides who may change it."""

    owner: str
    revision: int
    shown: dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """Entries, newest first, at a revision; `count` is of all jobs there are."""

    revision: int
    count: int
    entries: list[Entry]


class Board:
    """All jobs of a service, always as they stand."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._turn = threading.Lock()
        self._commits = -1
        self._revision = 0
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []

    def look(self, since: int | None = None, limit: int | None = None) -> Listed:
        """All jobs, or those changed after a revision; at most `limit` of those that are over."""
        with self._turn:
            self._refresh()
            found = [self._entries[job_id] for job_id in self._order]
            revision, count = self._revision, len(self._order)
        if since is not None:
            found = [one for one in found if one.revision > since]
        if limit is not None:
            over = [one for one in found if not one.shown["active"]][limit:]
            dropped = {one.shown["job_id"] for one in over}
            found = [one for one in found if one.shown["job_id"] not in dropped]
        return Listed(revision, count, found)

    def _refresh(self) -> None:
        commits = self._service.store.database.commits
        if commits == self._commits:
            return
        changed = self._service.jobs(since=self._revision)
        for job in changed:
            self._entries[job.job_id] = Entry(job.owner, job.revision, shown(job))
            self._revision = max(self._revision, job.revision)
        if changed:
            created = {job_id: one.shown["created"] for job_id, one in self._entries.items()}
            self._order = sorted(created, key=lambda one: (created[one], one), reverse=True)
        # Counted before the reading: what came meanwhile is read the next time.
        self._commits = commits


def shown(job: Job) -> dict[str, Any]:
    """A job as anybody may see it, with the seconds that it is expected to take."""
    values = {name: getattr(job, name) for name in SHOWN}
    seconds = job.spec.get("predicted", {}).get("predicted_seconds", [None])[0]
    waits = job.state in ACTIVE and seconds is not None
    return values | {"state": str(job.state), "expected": round(seconds, 1) if waits else None}
