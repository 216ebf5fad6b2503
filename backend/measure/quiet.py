"""Keeps timing undisturbed: workers of one home share the machine, and one may have it alone.

A worker takes its share for one stretch of work at a time, and gives it back in between. Who
asks to be alone shuts the gate, so that shares already out run down and no new one is given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class Quiet:
    """The lock of one home folder; without effect where the system has no file locks."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._gate, self._share = folder / "gate.lock", folder / "share.lock"

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Work beside others."""
        with _held(self._gate, alone=False):
            share = _open(self._share, alone=False)
        try:
            yield
        finally:
            os.close(share)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work while nobody else does."""
        with _held(self._gate, alone=True), _held(self._share, alone=True):
            yield


@contextmanager
def _held(path: Path, *, alone: bool) -> Iterator[None]:
    descriptor = _open(path, alone=alone)
    try:
        yield
    finally:
        os.close(descriptor)


def _open(path: Path, *, alone: bool) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    return descriptor
