"""All checks, cheapest first: `python -m tests [arguments of pytest]`; stops at the first to fail.

Format, lint and types take seconds. With arguments, such as `-m faults` or a file, only pytest
runs, with them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKS = (
    ("format", ["ruff", "format", "--check", "--quiet", "."]),
    ("lint", ["ruff", "check", "--quiet", "."]),
    ("types", ["pyrefly", "check", "--python-interpreter-path", sys.executable]),
)
AT_ONCE = (os.cpu_count() or 1) + 1
"""Files at a time: one more than there are cores, for many tests wait for a process or a clock."""
WHOLE = ["-q", "-n", str(AT_ONCE), "--dist", "loadfile", "--no-loadscope-reorder"]
"""The whole suite, a file at a time in the order of `conftest.py`; each computes with one thread.

What a file has made once, such as a service, a page or fitted matrices, is never made twice.
"""
MARKED = ("faults", "security")
"""Suites of their own, `-m faults`, which run in the same way; other arguments are as they are."""


def main(arguments: list[str]) -> int:
    """Run the checks; returns the exit code of the first that fails."""
    if not arguments:
        for name, command in CHECKS:
            print(f"{name}: {' '.join(command)}", flush=True)
            done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False)
            if done.returncode:
                print(f"{name} failed; CONTRIBUTING.md says what to do.", file=sys.stderr)
                return done.returncode
    if shutil.which("chromium") is None and shutil.which("chromium-browser") is None:
        print("NO CHROMIUM FOUND: the browser tests are left out. Install it with the system.")
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes read the same modules
    return subprocess.run(
        [sys.executable, "-m", "pytest", *chosen(arguments)],
        cwd=ROOT,
        env=environment,
        check=False,
    ).returncode


def chosen(arguments: list[str]) -> list[str]:
    """What pytest is told."""
    if arguments[:1] != ["-m"] or not {*MARKED}.intersection(arguments[1:2]):
        return arguments or WHOLE
    mark = f"mark.{arguments[1]}"  # looking for it in every file takes longer than its tests
    files = [path for path in sorted(ROOT.glob("tests/test_*.py")) if mark in path.read_text()]
    return [*WHOLE, *arguments, *map(str, files)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
