"""Measure how long an attempt takes to begin: `python docs/attempt_start.py [MODULE ...]`.

From the launcher's call to the first event of the worked function, with and without a fork
server that has imported the modules (default torch and transformers).
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.jobs.launchers import ROOT, LocalLauncher
from backend.jobs.stream import Emit

REPEATS = 7


def attempt(spec: dict[str, Any], _folder: Path, emit: Emit) -> None:
    """Import what an attempt needs and say so."""
    for module in spec["modules"]:
        __import__(module)
    emit("log", {"text": "begun"})


def measure(launcher: LocalLauncher, modules: list[str], number: int) -> float:
    """Seconds from `start` to the first word of the attempt."""
    name = f"{number:032x}-1"
    began = time.time()
    launcher.start(name, {"modules": modules})
    while b'"exit"' not in launcher.read(name, 0):
        time.sleep(0.005)
    events = [json.loads(line) for line in launcher.read(name, 0).splitlines()]
    return next(event["time"] for event in events if event["kind"] == "log") - began


def main() -> None:
    """Print the medians."""
    modules = sys.argv[1:] or ["torch", "transformers"]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'docs'}"}
    with tempfile.TemporaryDirectory() as home:
        for preload in (modules, []):
            launcher = LocalLauncher(
                Path(home), ["attempt_start:attempt"], preload, environment=environment
            )
            if launcher.fork_server:
                began = time.time()
                launcher.fork_server.ping(120)
                sys.stdout.write(f"fork server warm after {time.time() - began:.2f} s\n")
            repeats = REPEATS if preload else 3
            first = 0 if preload else 1000
            seconds = [measure(launcher, modules, first + n) for n in range(repeats)]
            way = "forked" if preload else "spawned"
            sys.stdout.write(f"{way}: median {statistics.median(seconds):.3f} s of {repeats}, ")
            sys.stdout.write(f"{min(seconds):.3f} to {max(seconds):.3f}\n")
            launcher.close()


if __name__ == "__main__":
    main()
