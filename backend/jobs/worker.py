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
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.faults import fault_point
from backend.jobs.confinement import confine, give_way, leave_network, shortage
from backend.jobs.lifelines import die_with_parent, offer_to_out_of_memory_killer
from backend.jobs.stream import Emit, Emitter

MESSAGE_LIMIT = 4_000
BEAT_PERIOD = 1.0  # seconds between signs of life

Run = Callable[[dict[str, Any], Path, Emit], None]


def work(folder: Path, target: str, events: int) -> int:
    """Run the named function on the attempt's spec and return the exit code, 0 or 1."""
    faulthandler.enable()
    offer_to_out_of_memory_killer()
    emit = Emitter(events)
    try:
        assignment = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        spec = assignment["spec"]
        run = find(target)
        if target in assignment.get("offline", ()):
            leave_network()
        give_way()
        confine(spec.get("data_limit_bytes"), spec.get("file_limit_bytes"))
        threading.Thread(target=_beat, args=(emit,), daemon=True).start()
        fault_point("worker.begin")
        run(spec, folder, emit)
        fault_point("worker.done")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the stream and the log
        traceback.print_exc()
        told = shortage(error)
        report = {
            "type": type(error).__name__,
            "message": told or str(error)[:MESSAGE_LIMIT],
            "user_facing": bool(told) or getattr(error, "user_facing", False) is True,
        }
        emit("error", report)
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


def _beat(emit: Emitter) -> None:
    # A thread that cannot get its turn says nothing, and neither does a process that is stopped.
    while emit.beat():
        time.sleep(BEAT_PERIOD)


def _exit_with_parent() -> None:
    # The runner holds the other end of standard input and never writes: the end of the file is
    # the end of the runner.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
