"""The long tests: `python -m tests.nightly kill|soak|load [--json]`, on the real program.

    kill  --kills 50       SIGKILL for each kind of process at random moments
    soak  --jobs 1000      does memory, or anything else, grow with the number of jobs?
    load  --visitors 200   how long visitors wait while 1,000 jobs are queued and run

Each works in a new temporary home and ends with 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.nightly.killing import kill
from tests.nightly.loading import load
from tests.nightly.soaking import soak


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command and its numbers."""
    parser = argparse.ArgumentParser(prog="python -m tests.nightly", description=__doc__)
    parser.add_argument("what", choices=("kill", "soak", "load"))
    parser.add_argument("--kills", type=int, default=50, help="of each kind of process")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--visitors", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7, help="of the moments of the kills")
    parser.add_argument("--json", action="store_true", help="figures as one line of JSON")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run one, print its figures, and return 1 where something does not hold."""
    flags = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="nightly-") as folder:
        home = Path(folder)
        if flags.what == "kill":
            figures = kill(home, flags.kills, flags.seed)
        elif flags.what == "soak":
            figures = soak(home, flags.jobs)
        else:
            figures = load(home, flags.jobs, flags.visitors, flags.seed)
    if flags.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        for name, value in figures.items():
            sys.stdout.write(f"{name}: {value}\n")
    return 1 if figures["problems"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
