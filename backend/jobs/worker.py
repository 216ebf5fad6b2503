"""One clean process that does the work of an attempt; imports nothing heavy by itself.

Started as `python -m backend.jobs.worker FOLDER MODULE:FUNCTION PARENT`, or forked from the fork
server. Standard output of the process is the event stream until it is moved to a private
descriptor; whatever prints afterwards prints into the log.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.jobs.lifelines import die_with_parent, offer_to_out_of_memory_killer
from backend.jobs.stream import Emit, Emitter

MESSAGE_LIMIT = 4_000

Run = Callable[[dict[str, Any], Path, Emit], None]


def work(folder: Path, target: str, events: int) -> int:
    """Run the named function on the attempt's spec and return the exit code, 0 or 1."""
    faulthandler.enable()
    offer_to_out_of_memory_killer()
    emit = Emitter(events)
    try:
        assignment = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        run = find(target)
        run(assignment["spec"], folder, emit)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the stream and the log
        traceback.print_exc()
        report = {"type": type(error).__name__, "message": str(error)[:MESSAGE_LIMIT]}
        emit("error", report | {"user_facing": getattr(error, "user_facing", False) is True})
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    return 0


def find(target: str) -> Run:
    """The function that `module:function` names."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


def main() -> int:
    """Entry of a spawned worker."""
    folder, target, parent = sys.argv[1:]
    die_with_parent(int(parent))
    if sys.platform != "linux":
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    events = os.dup(1)
    os.dup2(2, 1)
    return work(Path(folder), target, events)


def _exit_with_parent() -> None:
    # The runner holds the other end of standard input and never writes: the end of the file is
    # the end of the runner.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
