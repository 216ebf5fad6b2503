"""Where all state of a copy of the program lies."""

from __future__ import annotations

import os
import sys
from pathlib import Path


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
