"""Folders kept by content below one parent, the oldest going when all take too much."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

LIMIT = 10 << 30  # bytes of one shelf
IN_USE = 86_400  # seconds; what was written since then may be about to be read


def make_room(folder: Path, limit: int = LIMIT) -> None:
    """Create a folder, and drop the oldest beside it while all take more than `limit` bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tidy(folder.parent, limit)


def tidy(shelf: Path, limit: int, in_use: float = IN_USE) -> None:
    """Drop the oldest folders and files of a shelf while all take more than `limit` bytes.

    Args:
        shelf: the folder that holds them.
        limit: bytes that they may take.
        in_use: seconds; what was used since then stays.
    """
    ages = {}
    for path in shelf.iterdir():
        with suppress(FileNotFoundError):  # others may be tidying up as well
            ages[path] = path.stat().st_mtime
    unused = [path for path, age in ages.items() if age < time.time() - in_use]
    oldest_first = sorted(unused, key=lambda path: ages[path])
    while oldest_first and _bytes(shelf) > limit:
        _drop(oldest_first.pop(0))


def _drop(path: Path) -> None:
    """Delete a folder, or a file that lies among them."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()


def used(folder: Path) -> None:
    """Note that a folder is used now."""
    with suppress(OSError):  # gone, or on a disk that is only read
        os.utime(folder)


def _bytes(folder: Path) -> int:
    total = 0
    for below, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(below, name).stat().st_size
    return total
