"""Where attempts run. The ledger knows only the five verbs of `Launcher`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from backend.faults import fault_point
from backend.jobs.errors import JobError
from backend.jobs.forkserver import IDLE_SECONDS, MODULES, ForkServer
from backend.jobs.lifelines import Lock
from backend.jobs.processes import MARK, kill_marked

FETCH = "backend.attempt:run_fetch"  # the one step that may use the network
RUN = (FETCH, "backend.attempt:run_compress", "backend.attempt:run_measure")
CHUNK_LIMIT = 4 * 2**20
ROOT = Path(__file__).resolve().parents[2]

_NAME = re.compile(r"[0-9a-f]{32}-[0-9]{1,6}")
_KEPT = re.compile(
    r"(PATH|HOME|USER|LANG|TZ|TMPDIR|TEMP|TMP|VIRTUAL_ENV|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH"
    r"|SYSTEMROOT|COMSPEC|PATHEXT|USERPROFILE|LOCALAPPDATA|APPDATA|CC|CXX"
    r"|(LC|PYTHON|PARETOSCOPE|CUDA|NVIDIA|ROCM|ROCR|HIP|HSA|TORCH|PYTORCH|TORCHINDUCTOR|TRITON"
    r"|OMP|MKL|KMP|OPENBLAS|XDG|HF_HUB|TRANSFORMERS|COVERAGE)_?[A-Z0-9_]*"
    r"|HF_HOME|HF_ENDPOINT)"
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|API_KEY", re.IGNORECASE)


class Launcher(Protocol):
    """A place that runs named attempts and keeps their streams; names are `<job>-<attempt>`.

    Attributes:
        fork_server: makes processes of this machine at once; None where there is none.
    """

    fork_server: ForkServer | None

    def asked(self, run_id: str) -> None:
        """Take note that the run is asked for in the calling context, a visitor's request."""
        ...

    def start(self, name: str, spec: Mapping[str, Any]) -> None:
        """Start the attempt; harmless when it was started before."""
        ...

    def alive(self, name: str) -> bool:
        """Whether its runner lives."""
        ...

    def started(self, name: str) -> bool:
        """Whether it ever began."""
        ...

    def read(self, name: str, offset: int) -> bytes:
        """Whole lines of its stream from a byte offset; empty when there is nothing new."""
        ...

    def kill(self, name: str) -> None:
        """Have it end with all its processes; harmless when it is over, or has not begun."""
        ...

    def warm_up(self) -> None:
        """Begin what the first attempt will need; never waits for long."""
        ...

    def close(self) -> None:
        """Let go of attempts, which carry on."""
        ...


class LocalLauncher:
    """Attempts as processes of this machine, below `home/attempts`.

    Args:
        home: The home folder.
        run: What a worker calls, as `module:function`; several run in order, each in a clean
            process of its own.
        preload: Modules that a fork server imports ahead of the workers, so that they begin at
            once; with none, or where the system cannot fork, each begins with a new interpreter.
        environment: Variables of the workers, besides those that every worker is allowed.
        idle_seconds: How long an unused fork server stays.
    """

    def __init__(
        self,
        home: Path,
        run: Sequence[str] = RUN,
        preload: Sequence[str] = MODULES,
        environment: Mapping[str, str] | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ):
        self.folder = home / "attempts"
        self._run = tuple(run)
        self._environment = worker_environment(environment)
        self.fork_server: ForkServer | None = None
        if preload and ForkServer.available():
            self.fork_server = ForkServer(home, self._environment, preload, idle_seconds)
        self._runners: list[subprocess.Popen] = []
        self._turn = threading.Lock()

    def asked(self, run_id: str) -> None:
        """Nothing: this machine works for whoever asks."""

    def start(self, name: str, spec: Mapping[str, Any]) -> None:
        """Write the assignment and start a runner, unless this attempt has begun."""
        folder = self._attempt(name)
        if self.started(name) or self.alive(name):
            return
        folder.mkdir(parents=True, exist_ok=True)
        server = self.fork_server.ensure() if self.fork_server else None
        order = assignment(spec, self._run, server)
        partial = folder / "spec.tmp"
        partial.write_text(json.dumps(order, allow_nan=False), encoding="utf-8")
        fault_point("launch.assign")
        partial.replace(folder / "spec.json")
        fault_point("launch.start")
        runner = subprocess.Popen(
            [sys.executable, "-P", "-m", "backend.jobs.runner", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=self._environment | {MARK: name},
            start_new_session=True,
        )
        with self._turn:
            self._runners.append(runner)

    def warm_up(self) -> None:
        """Have the fork server begin its imports; never waits."""
        if self.fork_server:
            self.fork_server.ensure()

    def alive(self, name: str) -> bool:
        """Whether a runner holds the lock of this attempt."""
        self._reap()
        folder = self._attempt(name)
        if not folder.is_dir():
            return False
        lock = Lock(folder / "lock")
        if not lock.acquire():
            return True
        lock.release()
        return False

    def started(self, name: str) -> bool:
        """Whether a runner has opened the stream."""
        return (self._attempt(name) / "out.jsonl").exists()

    def read(self, name: str, offset: int) -> bytes:
        """Whole lines from the offset, up to about 4 MiB at a time."""
        try:
            with (self._attempt(name) / "out.jsonl").open("rb") as file:
                file.seek(offset)
                chunk = file.read(CHUNK_LIMIT)
        except FileNotFoundError:
            return b""
        return chunk[: chunk.rfind(b"\n") + 1]

    def kill(self, name: str) -> None:
        """Leave the sign that the runner looks for, and end what a dead runner left behind."""
        folder = self._attempt(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cancel").touch()
        if self.started(name) and not self.alive(name):
            kill_marked(name)

    def close(self) -> None:
        """Let go of the runners, which carry on, and end the fork server after its workers."""
        if self.fork_server:
            self.fork_server.close()
        self._reap()
        with self._turn:
            for runner in self._runners:
                # Popen warns of a process that outlives it; this one is meant to.
                runner.returncode = 0
            self._runners.clear()

    def _attempt(self, name: str) -> Path:
        if not is_attempt(self.folder / name):
            raise JobError(f"`{name}` is not the name of an attempt.")
        return self.folder / name

    def _reap(self) -> None:
        with self._turn:
            self._runners = [runner for runner in self._runners if runner.poll() is None]


def is_attempt(folder: Path) -> bool:
    """Whether a folder is named as those of attempts are; others are not ours to touch."""
    return _NAME.fullmatch(folder.name) is not None


def assignment(spec: Mapping[str, Any], run: Sequence[str], server: Path | None) -> dict[str, Any]:
    """What a runner is told: the work, its limits, and where a fork server listens."""
    return {
        "spec": spec,
        "run": run,
        "offline": [one for one in run if one != FETCH],
        "timeout_seconds": spec.get("timeout_seconds"),
        "memory_limit_bytes": spec.get("memory_limit_bytes"),
        "silence_seconds": spec.get("silence_seconds"),
        "fork_server": str(server) if server else None,
    }


def worker_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a worker may know of this process's environment: paths and settings, no secret."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if _KEPT.fullmatch(name) and not _SECRET.search(name)
    }
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return (
        kept
        | {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            # Its threads would make a fork unsafe, and spawned workers must compute the same.
            "OPENBLAS_NUM_THREADS": "1",
            # Threads that spin while they wait lose most of shared cores to waiting.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        | dict(extra or {})
    )
