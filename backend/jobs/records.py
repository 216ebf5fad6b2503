"""What the ledger hands out: plain frozen values that know nothing of the database."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backend.jobs.states import ACTIVE, State


@dataclass(frozen=True)
class Job:
    """One job as it stood at `revision`; times are seconds since 1970 in UTC."""

    job_id: str
    run_id: str
    owner: str
    model: str
    recipe: str
    family: str
    spec: dict[str, Any]
    state: State
    attempt: int
    max_attempts: int
    priority: int
    created: float
    started: float | None
    ended: float | None
    reason: str
    cancel: bool
    stream_offset: int
    event_count: int
    stage: str
    done: float
    total: float
    revision: int

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ACTIVE

    @property
    def name(self) -> str:
        """Name of the current attempt, under which a launcher knows it."""
        return f"{self.job_id}-{self.attempt}"


@dataclass(frozen=True)
class Event:
    """One thing that a job reported; `number` counts without gaps over all attempts."""

    number: int
    attempt: int
    seq: int
    time: float
    kind: str
    data: dict[str, Any]


class Outcome(StrEnum):
    """What became of a submission."""

    QUEUED = "queued"
    JOINED = "joined"  # the same run waits or runs already
    CACHED = "cached"  # the same run is finished


@dataclass(frozen=True)
class Submission:
    """Answer to a submission; `job_id` is empty where a cached result came without a job."""

    run_id: str
    job_id: str
    outcome: Outcome
