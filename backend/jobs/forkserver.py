"""Own and reach the fork server, so that an attempt need not pay for the heavy imports.

The server's own loop is `backend.jobs.forking`, which imports what it is told to; nothing here
does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

MODULES = ("torch", "backend.models.warm", "backend.attempt")
IDLE_SECONDS = 600.0
UNFIT = 3  # exit code: an import started a thread, and a fork would copy its locks without it


class ForkServer:
    """Own a fork server below a home folder: start it when needed, end it by `close`."""

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str],
        modules: Sequence[str] = MODULES,
        idle_seconds: float = IDLE_SECONDS,
    ):
        self._home = home
        self._environment = dict(environment)
        self._modules = tuple(modules)
        self._idle_seconds = idle_seconds
        self._turn = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._path: Path | None = None

    @staticmethod
    def available() -> bool:
        """Whether this system can fork a process that has imported so much."""
        return sys.platform == "linux"

    def ensure(self) -> Path | None:
        """Path of the socket of a server that runs or is warming up, or None without one.

        Never waits: a request made while it warms up is answered when it is warm.
        """
        if not self.available():
            return None
        with self._turn:
            if self._process is not None:
                code = self._process.poll()
                if code is None:
                    return self._path
                if code == UNFIT:
                    return None
                self._let_go()
            self._start()
            return self._path

    @property
    def process_id(self) -> int | None:
        """Number of the server's process, or None while there is none."""
        with self._turn:
            alive = self._process is not None and self._process.poll() is None
            return self._process.pid if self._process is not None and alive else None

    def ping(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a warm server to answer."""
        path = self.ensure()
        if path is None:
            return False
        try:
            with connect(path) as connection:
                connection.settimeout(timeout)
                connection.send(b'{"ask": "ping"}')
                return connection.recv(64) == b'"warm"'
        except OSError:
            return False

    def close(self) -> None:
        """Ask it to end: at once, or with the last worker that still runs."""
        with self._turn:
            self._let_go()

    def _start(self) -> None:
        for stale in self._home.glob("fork-*.sock"):
            stale.unlink(missing_ok=True)
        self._path = self._home / f"fork-{os.urandom(4).hex()}.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with listener, (self._home / "fork-server.log").open("wb") as log:
            # Bound here, so that a runner can knock before the server has begun to import.
            with _short(self._path) as address:
                listener.bind(address)
            self._path.chmod(0o600)
            listener.listen(64)
            arguments = (str(listener.fileno()), str(self._path), str(self._idle_seconds))
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "backend.jobs.forking"),
                    *(*arguments, *self._modules),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def _let_go(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        process.terminate()  # ends it while it imports; later it means what the closed pipe means
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            # It stays for its last worker; reap it whenever that ends.
            threading.Thread(target=process.wait, daemon=True).start()


def connect(path: Path) -> socket.socket:
    """A connection to the server at this path.

    Raises:
        OSError: Nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(path) as address:
            connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of a few bytes for a socket whose path may exceed the system's 107."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
