"""The extension for CPUs: built once from `kernels/cpu` by the system's compiler, then loaded.

Plain C functions that know nothing of torch, so that building takes seconds. Built at first use
below torch's folder of extensions, by the digest of sources, flags and compiler; without a
compiler there is none, and everything runs by torch's own products. So it does where the
extension multiplies otherwise than torch: that is tried before anything relies on it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "cpu"
FLAGS = (
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-Wno-psabi"),
    *(() if sys.platform == "darwin" else ("-fopenmp",)),
)
BUILD_SECONDS = 300
OFF = "PARETOSCOPE_NO_EXTENSION"
"""Set in the environment, it leaves everything to torch."""

_TRIED: ContextVar[ctypes.CDLL | None] = ContextVar("tried", default=None)
"""What is being tried, which nobody but the trial may use."""


def library() -> ctypes.CDLL | None:
    """The loaded extension, or None where there is none; `reason` says why."""
    return _TRIED.get() or _found()[0]


def reason() -> str:
    """Why there is no extension, in one sentence; empty where there is one."""
    return _found()[1]


@cache
def _found() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get(OFF):
        return None, f"{OFF} is set."
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return None, "No C++ compiler was found; install one, such as g++, for faster products."
    try:
        return _trusted(ctypes.CDLL(str(built(compiler))))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return None, f"The extension could not be built or loaded: {error}"


def _trusted(loaded: ctypes.CDLL) -> tuple[ctypes.CDLL | None, str]:
    """The same if its products are those of torch, else why it is left out."""
    from kernels import self_test

    token = _TRIED.set(loaded)
    try:
        wrong = self_test.disagreement()
    except AttributeError as error:
        wrong = f"A function is missing: {error}."
    finally:
        _TRIED.reset(token)
    return (None, f"The extension fails its own test. {wrong}") if wrong else (loaded, "")


def built(compiler: str) -> Path:
    """Path of the built extension, built if it is not there.

    A build happens in a folder of its own and appears whole: one that was killed leaves no lock,
    and two at once do the same twice.

    Raises:
        RuntimeError: the compiler refuses.
        subprocess.SubprocessError: it does not answer, or takes over five minutes.
        OSError: the folder cannot be written.
    """
    target = folder() / f"paretoscope-{_digest(compiler)}.so"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as own:
        fresh = Path(own, target.name)
        sources = sorted(SOURCES.glob("*.cpp"), key=lambda path: "vnni" not in path.name)
        with ThreadPoolExecutor(os.cpu_count()) as several:  # those that take longest first
            objects = [*several.map(lambda path: _compiled(compiler, path, Path(own)), sources)]
        _run([compiler, *FLAGS, *objects, "-o", str(fresh)])
        fresh.replace(target)
    return target


def _compiled(compiler: str, source: Path, folder: Path) -> str:
    """Path of what a source becomes."""
    target = str(folder / f"{source.stem}.o")
    _run([compiler, *FLAGS, "-c", str(source), "-o", target])
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")


def folder() -> Path:
    """Where built extensions lie: torch's own folder for them."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache/torch_extensions")


def _digest(compiler: str) -> str:
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    whole = hashlib.sha256(repr((version, FLAGS, platform.machine())).encode())
    for path in sorted(SOURCES.iterdir()):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()[:16]
