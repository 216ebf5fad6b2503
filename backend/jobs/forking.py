"""The fork server's process: it has paid for the heavy imports and forks clean workers; Linux only.

It starts no thread, touches no accelerator and runs no work itself. It ends when its owner does,
once the last worker is gone, or when nobody has asked for anything for a while. Every request is
one connection, which is also the life line: the worker is killed when its runner hangs up.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from backend.jobs.forkserver import UNFIT
from backend.jobs.lifelines import die_with_parent, kill_group
from backend.jobs.processes import Tree
from backend.jobs.worker import work


class Server:
    """The loop of the server process: one thread, which only waits, forks and reaps."""

    def __init__(self, listener: socket.socket, path: Path, idle_seconds: float):
        self._listener = listener
        self._path = path
        self._idle_seconds = idle_seconds
        self._workers: dict[int, socket.socket] = {}
        self._woken, self._wake = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._owned = True

    def run(self) -> None:
        """Serve until the owner is gone and no worker is left, or until idle for too long."""
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: None)
        register = self._selector.register
        register(self._woken, selectors.EVENT_READ, self._reap)
        register(self._listener, selectors.EVENT_READ, self._accept)
        register(0, selectors.EVENT_READ, self._lose_owner)
        while self._owned or self._workers:
            ready = self._selector.select(self._idle_seconds)
            if not ready and not self._workers:
                break
            for key, _ in ready:
                key.data(key.fileobj)
        self._path.unlink(missing_ok=True)

    def _accept(self, _: object) -> None:
        connection, _address = self._listener.accept()
        connection.settimeout(1.0)
        descriptors: list[int] = []
        try:
            message, descriptors, _flags, _sender = socket.recv_fds(connection, 2**20, 4)
            request = json.loads(message)
            if not isinstance(request, dict):
                raise ValueError("a request is a JSON object")
            if request.get("ask") == "ping":
                connection.send(b'"warm"')
                connection.close()
            else:
                self._fork(connection, request, descriptors)
        except (OSError, ValueError):
            traceback.print_exc()
            connection.close()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(
        self, connection: socket.socket, request: Mapping[str, Any], descriptors: Sequence[int]
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        server = os.getpid()
        number = os.fork()
        if number == 0:
            code = 1
            try:
                self._forget_everything(connection)
                code = _become_worker(server, request, descriptors)
            except BaseException:  # noqa: BLE001 - a fork must never return into the server
                traceback.print_exc()
            finally:
                os._exit(code)
        self._workers[number] = connection
        connection.setblocking(False)
        self._selector.register(
            connection, selectors.EVENT_READ, lambda _: self._lose_runner(number)
        )
        with suppress(OSError):
            connection.send(json.dumps({"process_id": number}).encode())

    def _forget_everything(self, connection: socket.socket) -> None:
        # In the child. A copy of another worker's connection would hide the server's death.
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._selector.close()
        for one in (*self._workers.values(), connection, self._listener, self._woken, self._wake):
            one.close()

    def _lose_runner(self, number: int) -> None:
        # The worker may have ended, and been reaped, in the same round of the loop.
        if number in self._workers:
            self._selector.unregister(self._workers[number])
            Tree(number).kill()

    def _lose_owner(self, _: object) -> None:
        self._owned = False
        self._selector.unregister(0)
        self._selector.unregister(self._listener)
        self._listener.close()

    def _reap(self, _: object) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._workers:
            try:
                number, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if number == 0:
                return
            kill_group(number)
            connection = self._workers.pop(number)
            with suppress(KeyError):
                self._selector.unregister(connection)
            code = os.waitstatus_to_exitcode(status)
            answer = {"code": code, "peak_bytes": usage.ru_maxrss * 1024}
            with suppress(OSError):
                connection.send(json.dumps(answer).encode())
            connection.close()


def _become_worker(server: int, request: Mapping[str, Any], descriptors: Sequence[int]) -> int:
    os.setsid()
    die_with_parent(server)
    events, log = descriptors
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(request["environment"])
    folder = Path(request["folder"])
    os.chdir(folder)
    sys.argv = ["worker", str(folder), request["target"]]
    return work(folder, request["target"], events)


def main() -> int:
    """Entry of the server process: import, then serve."""
    descriptor, path, idle_seconds, *modules = sys.argv[1:]
    listener = socket.socket(fileno=int(descriptor))
    os.set_inheritable(listener.fileno(), False)
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001 - a worker that needs it will say so in its own name
            traceback.print_exc()
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        sys.stderr.write("An import started a thread; workers are spawned instead.\n")
        return UNFIT
    gc.collect()
    gc.freeze()  # the collector would touch, and so copy, every page shared with the workers
    Server(listener, Path(path), float(idle_seconds)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
