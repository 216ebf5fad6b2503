"""Where all state of a copy of the program lies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from backend.errors import DataError


def home_folder() -> Path:
    """Where all state lives: PARETOSCOPE_HOME, or the system's place for a program's data."""
    if named := os.environ.get("PARETOSCOPE_HOME"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "paretoscope"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "paretoscope"
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "paretoscope"


def keep_results(home: Path) -> bool:
    """Have the result files of a home lie in PARETOSCOPE_RESULTS; whether that is set.

    For a machine whose own disk begins anew at every start, beside a bucket that stays.

    Raises:
        DataError: the folder cannot be written, or the home has results of its own.
    """
    named = os.environ.get("PARETOSCOPE_RESULTS")
    if not named:
        return False
    kept, place = Path(named).expanduser().resolve(), home / "results"
    if place.is_symlink() and place.resolve() == kept:
        return True
    try:
        for folder in (home, kept):
            folder.mkdir(parents=True, exist_ok=True)
        if place.is_symlink():
            place.unlink()
        elif place.exists():
            place.rmdir()
        place.symlink_to(kept, target_is_directory=True)
    except OSError as error:
        raise DataError(
            f"Results cannot be kept in {kept} ({error.strerror}, {error.filename}): "
            "PARETOSCOPE_RESULTS names a folder that can be written, and a home that has results "
            "of its own must give them there first."
        ) from error
    return True
