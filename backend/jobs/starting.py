"""How a runner starts a worker, by forking the warm server or by a new interpreter."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backend.jobs.forkserver import connect
from backend.jobs.lifelines import kill_group

try:
    import resource
except ImportError:  # Windows
    resource = None


class NoForkServerError(Exception):
    """The fork server is not there, or left before it made a worker."""


@dataclass(frozen=True)
class Ended:
    """How a worker ended: exit code, or minus the signal; None when nobody can tell."""

    code: int | None
    peak_bytes: int


class Worker(Protocol):
    """A process at work, whoever its parent is."""

    process_id: int | None

    def poll(self) -> Ended | None:
        """How it ended, or None while it lives."""
        ...

    def abandon(self) -> None:
        """Give up all hold on it: whoever made it kills it."""
        ...


class SpawnedWorker:
    """A worker in a new interpreter, a child of this process."""

    def __init__(
        self, folder: Path, target: str, events: int, log: int, *, environment: Mapping[str, str]
    ):
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "backend.jobs.worker"),
                *(str(folder), target, str(os.getpid())),
            ],
            stdin=subprocess.PIPE,
            stdout=events,
            stderr=log,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
        self.process_id: int | None = self._process.pid

    def poll(self) -> Ended | None:
        """How it ended, or None while it lives."""
        code = self._process.poll()
        if code is None:
            return None
        kill_group(self._process.pid)
        return Ended(code, _peak_of_children())

    def abandon(self) -> None:
        """Kill it and take its status."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


class ForkedWorker:
    """A worker forked by the server; the connection is the life line of both.

    When this process dies, the server sees the connection close and kills the worker. When the
    server dies, the kernel kills the worker, and `poll` reports an end without a code.

    Raises:
        NoForkServerError: There is no server to ask.
    """

    def __init__(
        self,
        server: Path,
        folder: Path,
        target: str,
        events: int,
        log: int,
        *,
        environment: Mapping[str, str],
    ):
        request = {"folder": str(folder), "target": target, "environment": dict(environment)}
        self.process_id: int | None = None
        try:
            self._connection = connect(server)
        except OSError as error:
            raise NoForkServerError(str(error)) from None
        try:
            socket.send_fds(self._connection, [json.dumps(request).encode()], [events, log])
        except OSError as error:
            self._connection.close()
            raise NoForkServerError(str(error)) from None
        self._connection.setblocking(False)

    def poll(self) -> Ended | None:
        """How it ended, or None while it lives.

        Raises:
            NoForkServerError: The server left before it made the worker.
        """
        try:
            message = self._connection.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            message = b""
        if not message:
            self._connection.close()
            if self.process_id is None:
                raise NoForkServerError("the fork server left")
            kill_group(self.process_id)
            return Ended(None, 0)
        answer = json.loads(message)
        if "process_id" in answer:
            self.process_id = answer["process_id"]
            return None
        self._connection.close()
        return Ended(answer["code"], answer["peak_bytes"])

    def abandon(self) -> None:
        """Hang up: the server kills the worker, or never makes it."""
        with suppress(OSError):
            self._connection.close()


def _peak_of_children() -> int:
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
