"""The program as a process that can be started, asked, measured and killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[2]
PARTIAL = re.compile(r"\.(tmp|part|partial|incomplete)$|^fork-.*\.sock$")
START_LIMIT = 90.0  # seconds; two cores may be shared with much else


@dataclass(frozen=True)
class Usage:
    """Resident bytes, open descriptors and threads of a process, and seconds of cores it had."""

    memory: int
    handles: int
    threads: int
    seconds: float


class Program:
    """`app.py` with small attempts over one home folder; killed or stopped and started again."""

    def __init__(self, home: Path, *flags: str):
        self.home = home
        self._flags = flags
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.address, timeout=30, trust_env=False)
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.alive():
            self.kill()

    def start(self) -> None:
        """Begin; `until_up` waits until it answers."""
        environment = os.environ | {"PARETOSCOPE_HOME": str(self.home), "HF_HUB_OFFLINE": "1"}
        with (self.home / "said").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.nightly.web", "--home", str(self.home)),
                    *("--port", str(self.port), *self._flags),
                ],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def until_up(self, limit: float = START_LIMIT) -> bool:
        """Wait until it answers; False when it ended first.

        Raises:
            TimeoutError: it neither answers nor ends.
        """
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            if not self.alive():
                return False
            try:
                return self.client.get("/health").status_code == 200
            except httpx.TransportError:
                time.sleep(0.05)
        raise TimeoutError(f"the program does not answer after {limit:.0f} s")

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """The exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(60)

    def kill_in(self, seconds: float) -> threading.Timer:
        """Have it killed after a while, whatever it is doing then."""
        assert self._process is not None
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        return timer

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and content of a GET, or of a POST with a body.

        Raises:
            httpx.TransportError: nobody answers.
        """
        answer = self.client.get(path) if body is None else self.client.post(path, json=body)
        return answer.status_code, answer.json()

    def usage(self) -> Usage:
        """What the process holds now."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        with process.oneshot():
            spent = process.cpu_times()
            return Usage(
                process.memory_info().rss,
                process.num_fds(),
                process.num_threads(),
                spent.user + spent.system,
            )

    def processes(self) -> dict[int, str]:
        """Numbers of all other processes of this home, each with what it is."""
        own = None if self._process is None else self._process.pid
        return {number: kind for number, kind in processes_of(self.home).items() if number != own}

    def unfinished(self) -> list[str]:
        """Names of files that should not outlast what made them."""
        return [str(one) for one in self.home.rglob("*") if PARTIAL.search(one.name)]


def processes_of(home: Path) -> dict[int, str]:
    """Numbers of the processes of a home: `runner`, `worker`, `server` or `other`."""
    kinds = {process.pid: _kind(process, str(home)) for process in psutil.process_iter()}
    return {number: kind for number, kind in kinds.items() if kind}


def _kind(process: psutil.Process, home: str) -> str:
    """What a process of a home is; empty for any other."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        line = " ".join(process.cmdline())
        # A forked worker has the command line of its server, and the folder of its attempt.
        working = process.cwd().startswith(f"{home}/attempts/")
    except (psutil.Error, OSError):
        return ""
    if working:
        return "runner" if "backend.jobs.runner" in line else "worker"
    if home not in line:
        return ""
    return "server" if "backend.jobs.forking" in line else "other"


def recipe(number: int) -> str:
    """The recipe of a job: as many different ones as are wanted, all of them sound."""
    return f"rtn@{3 + number / 1000:g}"


def wish(number: int) -> dict[str, Any]:
    """What a visitor asks for to have a job queued."""
    return {"recipe": recipe(number), "tier": "smoke", "speed": ""}
