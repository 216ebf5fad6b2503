"""What one copy of the program lets its visitors do: everything at home, little in public."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from backend.errors import ParetoscopeError
from backend.live.records import LONGEST_PROMPT, MOST_TOKENS
from backend.service import SLOTS, Service

ADMISSION = threading.RLock()
"""Held from the question for room until it is taken, lest fifty who ask at once all find the last
place."""


class LimitError(ParetoscopeError):
    """More is asked than this copy gives."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what a visitor may ask.

    Attributes:
        public: only the embedded model, and jobs belong to who started them.
        queue: jobs that may wait or run at a time.
        per_owner: the same of one visitor.
        running: jobs that run at a time.
        job: bounds of each job, as `Service` takes them.
        prompt: letters of a prompt.
        new_tokens: that are written after one.
        database: bytes of the results' index; beyond, neither jobs nor results are taken.
        results: bytes of a file of results that is taken in; 0 where none is.
    """

    public: bool = False
    queue: int = 64
    per_owner: int = 64
    running: int = SLOTS
    job: Mapping[str, float] = field(default_factory=dict)
    prompt: int = LONGEST_PROMPT
    new_tokens: int = MOST_TOKENS
    database: int = 4 * 2**30
    results: int = 256 * 2**20

    def admit(self, service: Service, model: str, jobs: int, owner: str) -> None:
        """Pass a request for `jobs` more jobs; hold `ADMISSION` until they are queued.

        Raises:
            LimitError: says the limit and what to do instead.
        """
        if self.public and model.strip() not in ("", "default"):
            raise LimitError(
                "This public copy compresses only its embedded model, `default`; "
                "install Paretoscope to use any other."
            )
        self._check_database(service)
        active, own = service.load(owner)
        if active + jobs > self.queue:
            raise LimitError(
                f"{active} jobs wait or run and {self.queue} may; "
                f"{jobs} more do not fit, so wait or ask for fewer."
            )
        if own + jobs > self.per_owner:
            raise LimitError(
                f"One visitor may have {self.per_owner} jobs at a time; "
                f"you have {own} and ask for {jobs}."
            )

    def admit_text(self, prompt: str, new_tokens: int) -> None:
        """Pass a request for a text.

        Raises:
            LimitError: says the limit and what to do instead.
        """
        if len(prompt) > self.prompt or new_tokens > self.new_tokens:
            raise LimitError(
                f"This copy writes up to {self.new_tokens} tokens after up to {self.prompt:,} "
                f"letters; you ask for {new_tokens} after {len(prompt):,}."
            )

    def admit_results(self, service: Service) -> None:
        """Pass a request to take in a file of results.

        Raises:
            LimitError: says the limit and what to do instead.
        """
        if not self.results:
            raise LimitError(
                "This public copy shows only what it measured itself; install Paretoscope to "
                "take in results of other copies."
            )
        self._check_database(service)

    def _check_database(self, service: Service) -> None:
        if (size := service.store.database.size) > self.database:
            raise LimitError(
                f"The database of results takes {size / 1e9:.1f} GB and may take "
                f"{self.database / 1e9:.1f} GB; whoever runs this copy can export what is to be "
                "kept and start with another home folder."
            )

    def may_change(self, owner: str, visitor: str) -> bool:
        """Whether a visitor may cancel or repeat a job of this owner."""
        return not self.public or (bool(owner) and owner == visitor)


AT_HOME = Limits()
IN_PUBLIC = Limits(
    public=True,
    queue=16,
    per_owner=2,
    running=1,
    job={
        "timeout_seconds": 300,
        "silence_seconds": 30,
        "data_limit_bytes": 8 * 2**30,
        "artefacts_limit_bytes": 10 * 10**9,
    },
    database=2**30,
    results=0,
    prompt=1_000,
    new_tokens=128,
)
