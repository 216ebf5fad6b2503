"""What the queue may refuse, as a tree: every message is a sentence for a person."""

from __future__ import annotations

from backend.errors import ParetoscopeError


class JobError(ParetoscopeError):
    """Something about a job; the message may be shown as it is."""


class UnknownJobError(JobError):
    """No job has this id."""


class IllegalMoveError(JobError):
    """The state of the job does not allow this."""


class QueueFullError(JobError):
    """Too many jobs wait already."""
