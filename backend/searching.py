"""Holds the one search that goes on in the background of a server; imports no torch.

What a search finds are normal runs, so nothing here need outlive the process: asking again
begins where it ended.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Literal

from backend.budget import Budget
from backend.errors import ParetoscopeError
from backend.limits import LimitError
from backend.service import Service
from backend.solve import WIDTH, Solution, solve

LINES = 60  # of what it told, the newest

State = Literal["none", "running", "stopping", "done", "stopped", "failed"]


class StoppedError(ParetoscopeError):
    """Somebody asked for the search to end."""


@dataclass(frozen=True)
class Search:
    """A search as it stands.

    Attributes:
        budget: as it was written.
        model: that is to fit.
        owner: who asked.
        state: `none` where nobody asked yet.
        lines: what it told, oldest first.
        reason: why it failed.
        started: seconds since 1970.
        solution: what it found; None before it is done.
    """

    budget: str = ""
    model: str = "default"
    owner: str = ""
    state: State = "none"
    lines: tuple[str, ...] = ()
    reason: str = ""
    started: float = 0.0
    solution: Solution | None = None

    @property
    def active(self) -> bool:
        """Whether it goes on."""
        return self.state in ("running", "stopping")


class Searches:
    """One search at a time, in a thread of its own."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._now = Search()

    def now(self) -> Search:
        """The search that goes on, or the last."""
        return self._now

    def start(self, budget: str, model: str, *, width: int = WIDTH, owner: str = "") -> Search:
        """Begin a search, or join the one that goes on for the same.

        Raises:
            ParetoscopeError: the budget cannot be read.
            LimitError: another search goes on.
        """
        Budget.parse(budget)
        with self._lock:
            if self._now.active:
                if (self._now.budget, self._now.model) == (budget, model):
                    return self._now
                raise LimitError(
                    f"One search goes on at a time, now for {self._now.budget!r}; "
                    "wait for its end or stop it."
                )
            self._now = Search(budget, model, owner, "running", started=time.time())
            thread = threading.Thread(
                target=self._work, args=(self._now, width), name="search", daemon=True
            )
            thread.start()
            return self._now

    def stop(self) -> Search:
        """End the search after the runs that were asked for already; they are kept."""
        with self._lock:
            if self._now.state == "running":
                self._now = replace(self._now, state="stopping")
            return self._now

    def _work(self, asked: Search, width: int) -> None:
        try:
            found = solve(
                self._service,
                asked.budget,
                asked.model,
                width=width,
                watch=self._tell,
                owner=asked.owner,
            )
        except StoppedError:
            self._end(state="stopped")
        except ParetoscopeError as error:
            self._end(state="failed", reason=str(error))
        else:
            self._end(state="done", solution=found)
        finally:
            if self._now.active:
                self._end(state="failed", reason="The search broke off; the log says why.")

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._now.state == "stopping":
                raise StoppedError("The search was stopped.")
            self._now = replace(self._now, lines=(*self._now.lines, line)[-LINES:])

    def _end(self, *, state: State, reason: str = "", solution: Solution | None = None) -> None:
        with self._lock:
            self._now = replace(self._now, state=state, reason=reason, solution=solution)
