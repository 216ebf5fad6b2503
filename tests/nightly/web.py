"""The real program, `app.py`, whose attempts are small: `web.py --home HOME --port PORT`.

Only the function that a worker calls is another, and the fork server imports what that needs.
Page, REST, service, store, queue, runner, worker and their protocol are those of the program.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import app
from backend import opening
from backend.jobs.launchers import LocalLauncher

PRELOAD = ("backend.recipes", "tests.nightly.small")


def main() -> None:
    """Start the program with the same flags as `app.py`."""
    usual = opening.settings

    def settings(*asked: Any, **more: Any) -> dict[str, Any]:
        small = partial(LocalLauncher, run=["tests.nightly.small:run"], preload=PRELOAD)
        return usual(*asked, **more) | {"launcher": small}

    opening.settings = settings
    app.main()


if __name__ == "__main__":
    main()
