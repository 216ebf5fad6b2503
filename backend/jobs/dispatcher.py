"""The thread that keeps a ledger moving."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from backend.jobs.ledger import Ledger

PRUNE_PERIOD = 60.0  # seconds between two looks for what can be forgotten

LOGGER = logging.getLogger(__name__)


class Dispatcher:
    """Call `step` every fifth of a second, and at once when a job comes or goes.

    What is old is forgotten at the start and each minute, and its memory given back. A step that
    raises is logged and the next one tries again; a context manager.
    """

    def __init__(self, ledger: Ledger, period: float = 0.2):
        self._ledger = ledger
        self._period = period
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def __enter__(self) -> Dispatcher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the step under way and end; attempts carry on."""
        self._stopping.set()
        self._ledger.changed.set()
        self._thread.join()

    def _run(self) -> None:
        pruned = -PRUNE_PERIOD
        while not self._stopping.is_set():
            began = time.monotonic()
            if began - pruned >= PRUNE_PERIOD:
                pruned = began
                self._guard(self._ledger.prune)
                give_back()
            self._ledger.changed.clear()
            succeeded = self._guard(self._ledger.step)
            if not succeeded:
                self._stopping.wait(1)
            self._ledger.changed.wait(max(0, self._period - (time.monotonic() - began)))

    def _guard(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception:
            LOGGER.exception("The queue could not take a step; it tries again.")
            return False
        return True


def give_back() -> None:
    """Return freed memory to the system, where the C library keeps it for each thread (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
