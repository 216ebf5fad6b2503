"""Attempts that do no work but end in every way that real ones can."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from backend.jobs.stream import Emit
from backend.store.documents import write_document
from tests.result_documents import document


class PoliteError(Exception):
    user_facing = True


def run(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    """Report three steps, behave as `mode` says after the second, then write a result."""
    sys.stdout.write("the worker speaks\n")
    for done in range(1, 4):
        emit("progress", {"stage": "working", "done": done, "total": 3})
        time.sleep(spec.get("pause", 0.0))
        if done == 2:
            MODES[spec.get("mode", "ok")](spec, folder, emit)
    emit("reading", {"name": "kld", "value": float("nan")})
    if spec["run_id"]:
        finish(spec, folder, emit)


def finish(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    results = folder.parents[1] / "results"
    path = write_document(results, document(spec["run_id"]))
    emit("result", {"run_id": spec["run_id"], "path": str(path)})


def first_half(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    """One clean process of two: leave its number for the other to compare."""
    (folder / "first").write_text(str(os.getpid()))
    emit("log", {"text": "first"})


def second_half(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    emit("log", {"text": f"{(folder / 'first').read_text()} {os.getpid()}"})
    finish(spec, folder, emit)


def describe(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    """Tell what this process looks like from inside."""
    facts = {
        "process": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "descriptors": sorted(int(one.name) for one in Path("/proc/self/fd").iterdir()),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "modules": sorted(sys.modules),
        "main": Path(sys.argv[0]).name,
        "child_signal": str(signal.getsignal(signal.SIGCHLD)),
        "random": random.random(),
    }
    sys.stdout.write("printed\n")
    sys.stderr.write("complained\n")
    (folder / "facts.json").write_text(json.dumps(facts))
    finish(spec, folder, emit)


def _raise(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    raise RuntimeError("out of memory on the device")


def _raise_politely(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    raise PoliteError("This budget is out of reach: 1.8 bits at least.")


def _crash(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    ctypes.string_at(0)


def _die(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    # One C call that nothing interrupts, and a child that would outlive its parent.
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    (folder / "processes").write_text(f"{os.getpid()} {child.pid}")
    emit("log", {"text": "hanging"})
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2_000_000_000)


def _devour(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    kept = []
    while True:
        kept.append(b"1" * 2**24)
        time.sleep(0.01)


def _babble(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    os.write(emit.descriptor, b"this is no event\n")
    time.sleep(60)


def _wait(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    """Hold on until the test lets go."""
    while not (folder.parents[1] / "go").exists():
        time.sleep(0.01)


def _leave_early(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    sys.exit(0)


def _nothing(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    spec["run_id"] = ""


def _finish_then_crash(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    finish(spec, folder, emit)
    _crash(spec, folder, emit)


def _wrong_run(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    spec["run_id"] = "f" * 16


def _outside(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    emit("result", {"run_id": spec["run_id"], "path": "/etc/passwd"})
    spec["run_id"] = ""


def _stop(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _hold_the_turn(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    # A loop in C that never gives the interpreter back: no other thread runs.
    max(itertools.repeat(0))


def _allocate(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    bytearray(2**34)


def _fill(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    with (folder / "large").open("wb") as file:
        file.write(bytes(2**20))
        file.flush()
        os.fsync(file.fileno())


def _reach_out(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    with socket.create_connection(("127.0.0.1", spec["port"]), timeout=2):
        pass


def _count_limits(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    names = ("CORE", "NOFILE", "FSIZE", "DATA")
    found = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names}
    emit("log", {"limits": found | {"niceness": os.nice(0)}})


def _shout(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    # One line of a gigabyte, as far as anybody reads it.
    with suppress(OSError):
        for _ in range(1024):
            os.write(emit.descriptor, b"x" * 2**20)
    time.sleep(60)


def _ponder(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    """Work for a minute in silence, and take no exception for an end at first."""
    (folder / "pondering").touch()
    ends = time.monotonic() + 60
    caught = 0
    while time.monotonic() < ends:
        try:
            sum(range(1000))
        except Exception:
            caught += 1
            if caught > 1:
                raise


MODES = {
    "ponder": _ponder,
    "stop": _stop,
    "hold the turn": _hold_the_turn,
    "allocate": _allocate,
    "fill": _fill,
    "reach out": _reach_out,
    "limits": _count_limits,
    "shout": _shout,
    "ok": lambda *_: None,
    "exception": _raise,
    "polite": _raise_politely,
    "segv": _crash,
    "kill": _die,
    "hang": _hang,
    "memory": _devour,
    "babble": _babble,
    "wait": _wait,
    "early": _leave_early,
    "nothing": _nothing,
    "crash after result": _finish_then_crash,
    "wrong run": _wrong_run,
    "outside": _outside,
}
