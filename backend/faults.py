"""Named places where a test can make this program fail, to see that nothing is lost by it.

Inert unless the variable PARETOSCOPE_FAULT names a file that says which place is to fail. The file
is taken away as the place fails, so that whatever comes next succeeds.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

ARMED = "PARETOSCOPE_FAULT"
POINTS = (
    # in the process that owns the home folder
    "store.commit",
    "launch.assign",
    "launch.start",
    "journal.ingest",
    # in a worker
    "worker.begin",
    "fetch.begin",
    "compress.block",
    "artefact.write",
    "artefact.done",
    "reference.write",
    "result.write",
    "worker.done",
)


def fault_point(name: str) -> None:
    """Fail here if a test wants that: `NAME` as a full disk would, `NAME kill` by SIGKILL.

    Raises:
        OSError: the test armed this place.
    """
    path = os.environ.get(ARMED)
    if path is None or not _claimed(Path(path), name):
        return
    raise OSError(errno.ENOSPC, f"No space left on device (armed: {name})")


def _claimed(path: Path, name: str) -> bool:
    """Whether this place is the one armed, and this process the first to pass it."""
    try:
        wanted, _, manner = path.read_text(encoding="ascii").partition(" ")
        if wanted != name:
            return False
        path.unlink()
    except FileNotFoundError:
        return False
    if manner == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return True
