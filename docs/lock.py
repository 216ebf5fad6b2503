"""Write the locks, which name every file of every package by its hash: `python -m docs.lock`.

Needs `uv`, which resolves for all systems at once, and a network. What CUDA's build of torch needs
on Linux stands in a lock of its own, as its build for processors alone needs none of it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, CUDA, TESTS = "requirements.lock", "requirements-cuda.lock", "tests/requirements.lock"
CPU_BUILD = {
    "torch": ["6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"],
}
"""Builds that lie on another index than PyPI: torch 2.13.0+cpu, Python 3.11, Linux x86-64."""
HEADS = {
    LOCK: "Hashes of requirements.txt and what it needs, for Linux, macOS and Windows.",
    CUDA: "Hashes of what CUDA's build of torch needs on Linux, besides requirements.lock.",
    TESTS: "Hashes of tests/requirements.txt and what it needs beyond requirements.lock.",
}
_CUDA = re.compile(r"nvidia-|cuda-|triton==")


def main() -> None:
    """Resolve both lists and write the three locks."""
    app = resolved("requirements.txt")
    both = resolved("requirements.txt", "tests/requirements.txt")
    tests = {name: text for name, text in both.items() if name not in app or name == "triton"}
    write(LOCK, [text for text in app.values() if not _CUDA.match(text)])
    write(CUDA, [text for text in app.values() if _CUDA.match(text)])
    write(TESTS, list(tests.values()))


def resolved(*files: str) -> dict[str, str]:
    """Each package's entry, its hashes below it, by its name.

    Raises:
        SystemExit: uv is not there, or finds no answer.
    """
    command = ["uv", "pip", "compile", *files, "--universal", "--generate-hashes", "--quiet"]
    command += ["--python-version", "3.11", "--no-annotate", "--no-header"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise SystemExit("uv resolves the locks; install it first: pip install uv.") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"uv finds no answer: {error.stderr}") from None
    entries = re.split(r"\n(?=[a-z])", done.stdout.strip())
    found = {re.split(r"[ =]", entry, maxsplit=1)[0]: entry for entry in entries}
    for name, hashes in CPU_BUILD.items():
        found[name] += "".join(f" \\\n    --hash=sha256:{one}" for one in hashes)
    return {name: entry for name, entry in found.items() if "== 'emscripten'" not in entry}


def write(name: str, entries: list[str]) -> None:
    """One lock, its head first."""
    head = f"# {HEADS[name]}\n# Written by python -m docs.lock.\n"
    (ROOT / name).write_text(head + "\n".join(entries) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
