"""Tie processes to each other by what the kernel offers; only the standard library."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

_PR_SET_PDEATHSIG = 1


class Lock:
    """A file that one process at a time can hold; the system lets go when its holder dies.

    A lock of a few lines, because the library for it costs a third of a runner's start.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: int | None = None

    def acquire(self, timeout: float = 0.0) -> bool:
        """Take it within `timeout` seconds; False when somebody else holds it."""
        deadline = time.monotonic() + timeout
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        while not _try(file):
            if time.monotonic() >= deadline:
                os.close(file)
                return False
            time.sleep(0.01)
        self._file = file
        return True

    def release(self) -> None:
        """Let go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _try(file: int) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def kill_group(leader: int) -> None:
    """Kill what is left of the group that a session's first process led."""
    if hasattr(os, "killpg"):
        with suppress(OSError):
            os.killpg(leader, signal.SIGKILL)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; exit if that has happened.

    Linux only; elsewhere it does nothing.
    """
    if sys.platform != "linux":
        return
    import ctypes  # takes milliseconds, and only a worker needs it

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def offer_to_out_of_memory_killer() -> None:
    """When the machine runs out of memory, let this process go first."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
