"""The real program, `app.py`, whose attempts are small: `web.py --home HOME --port PORT`.

Only the function that a worker calls is another, and the fork server imports what that needs.
Page, REST, service, store, queue, runner, worker and their protocol are those of the program.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import app
from backend import cluster
from backend.jobs.launchers import LocalLauncher

PRELOAD = ("backend.recipes", "tests.nightly.small")


def main() -> None:
    """Start the program with the same flags as `app.py`."""
    home = Path(sys.argv[sys.argv.index("--home") + 1])

    def placing(*_: Any) -> dict[str, Any]:
        return {"launcher": LocalLauncher(home, ["tests.nightly.small:run"], PRELOAD)}

    cluster.placing = placing
    app.main()


if __name__ == "__main__":
    main()
