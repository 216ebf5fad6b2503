"""Write the locks, which name every file of every package by its hash: `python -m docs.lock`.

Needs `uv`, which resolves for all systems at once, and a network. What CUDA's build of torch needs
on Linux stands beside torch in a lock of its own, as its build for processors needs none of it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, TORCH, TORCH_CPU = "requirements.lock", "torch.lock", "torch-cpu.lock"
TESTS = "tests/requirements.lock"
CPU_BUILD = (
    "torch==2.13.0+cpu \\\n"
    "    --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
)
"""Lies on an index of its own, of which this is the build for Python 3.11 on Linux, x86-64."""
HEADS = {
    LOCK: "Hashes of requirements.txt and what it needs, besides torch; goes with torch.lock.",
    TORCH: "Hashes of torch and, on Linux, of CUDA as torch needs it; goes with requirements.lock.",
    TORCH_CPU: "In place of torch.lock: torch for processors alone, Linux x86-64, Python 3.11.",
    TESTS: "Hashes of tests/requirements.txt and what it needs beyond requirements.lock.",
}
_TORCH = re.compile(r"nvidia-|cuda-|triton==|torch==")


def main() -> None:
    """Resolve both lists and write the four locks."""
    app = resolved("requirements.txt")
    both = resolved("requirements.txt", "tests/requirements.txt")
    tests = {name: text for name, text in both.items() if name not in app or name == "triton"}
    write(LOCK, [text for text in app.values() if not _TORCH.match(text)])
    write(TORCH, [text for text in app.values() if _TORCH.match(text)])
    write(TORCH_CPU, [CPU_BUILD])
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
    return {name: entry for name, entry in found.items() if "== 'emscripten'" not in entry}


def write(name: str, entries: list[str]) -> None:
    """One lock, its head first."""
    head = f"# {HEADS[name]}\n# Written by python -m docs.lock.\n"
    (ROOT / name).write_text(head + "\n".join(entries) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
