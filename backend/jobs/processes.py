"""Watch and kill a process with all its descendants."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "PARETOSCOPE_ATTEMPT"  # variable that names the attempt to all its descendants

_PR_SET_PDEATHSIG = 1


class Tree:
    """A process and every descendant ever seen, so that none survives by losing its parent.

    A number that the system has given to another process meanwhile is recognised and spared.
    """

    def __init__(self, number: int):
        self._seen: dict[int, psutil.Process] = {}
        self._root: psutil.Process | None = None
        with suppress(psutil.Error):
            self._root = psutil.Process(number)
            self._seen[number] = self._root

    def root_bytes(self) -> int:
        """Resident bytes of the first process alone; costs microseconds."""
        with suppress(psutil.Error):
            if self._root is not None:
                return self._root.memory_info().rss
        return 0

    def all_bytes(self) -> int:
        """Resident bytes of all, shared pages counted in each; walks the process table."""
        self._look()
        total = 0
        for process in self._seen.values():
            with suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def kill(self) -> None:
        """Kill all, now."""
        self._look()
        for process in self._seen.values():
            with suppress(psutil.Error):
                process.kill()

    def _look(self) -> None:
        if self._root is not None:
            with suppress(psutil.Error):
                for process in self._root.children(recursive=True):
                    self._seen.setdefault(process.pid, process)


def kill_group(leader: int) -> None:
    """Kill what is left of the group that a session's first process led."""
    if hasattr(os, "killpg"):
        with suppress(OSError):
            os.killpg(leader, signal.SIGKILL)


def kill_marked(attempt: str) -> None:
    """Kill every other process whose environment names this attempt, whoever its parent is."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == attempt:
                process.kill()


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
