"""Supervise one attempt: `python -m backend.jobs.runner FOLDER`; imports nothing heavy.

It runs each named function in a clean worker of its own, relays the events into `out.jsonl`,
enforces time, memory and cancel, kills what is left, and always writes a last line `exit`. It is
a session of its own and outlives the program that started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from backend.jobs.lifelines import Lock
from backend.jobs.starting import Ended, ForkedWorker, NoForkServerError, SpawnedWorker, Worker
from backend.jobs.stream import KINDS, LINE_LIMIT, ProtocolError, parse

if TYPE_CHECKING:
    from backend.jobs.processes import Tree

OK = "ok"
TIMEOUT = "timeout"
SILENT = "silent"
CANCELLED = "cancelled"
INTERRUPTED = "interrupted"
SERVER_DIED = "fork server died"

TICK = 0.05  # seconds between looks at the limits
TREE_PERIOD = 1.0  # seconds between walks of the process table, which cost milliseconds
SILENCE_LIMIT = 120.0  # seconds without a sign of life, unless the job sets its own
WARM_UP_LIMIT = 60.0  # seconds a fork server may take to make a worker
TAIL_BYTES = 4_000
STREAM_LIMIT = 256 * 2**20
LOG_LIMIT = 256 * 2**20


class Stream:
    """The event file of an attempt: numbered lines, appended only, safe between threads."""

    def __init__(self, path: Path):
        self._file = path.open("ab", buffering=0)
        self._turn = threading.Lock()
        self._seq = 0
        self._size = 0

    def write(self, kind: str, data: dict[str, Any]) -> None:
        """Append one event.

        Raises:
            ProtocolError: The stream has grown beyond 256 MiB; an `exit` always fits.
        """
        with self._turn:
            if self._size > STREAM_LIMIT and kind != "exit":
                raise ProtocolError(f"the events exceed {STREAM_LIMIT:,} bytes")
            line = json.dumps({"seq": self._seq, "time": time.time(), "kind": kind, "data": data})
            self._size += self._file.write(line.encode() + b"\n")
            self._seq += 1

    def close(self) -> None:
        """Make everything durable."""
        os.fsync(self._file.fileno())
        self._file.close()


class Relay(threading.Thread):
    """Carry events from a worker's pipe into the stream until the pipe closes."""

    def __init__(self, descriptor: int, stream: Stream):
        super().__init__(daemon=True)
        self.failure = ""
        self.heard = time.monotonic()
        self._descriptor = descriptor
        self._stream = stream

    def run(self) -> None:
        """Carry; on the first breach of the rules note it in `failure` and stop."""
        rest = b""
        with os.fdopen(self._descriptor, "rb", buffering=0) as pipe:
            try:
                while chunk := pipe.read(65536):
                    self.heard = time.monotonic()
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in filter(None, lines):  # an empty one is a sign of life
                        self._carry(line)
                    if len(rest) > LINE_LIMIT:
                        raise ProtocolError("an event is too long")
            except (ProtocolError, OSError) as error:
                self.failure = f"protocol: {error}"

    def _carry(self, line: bytes) -> None:
        event = parse(line)
        if event["kind"] not in KINDS:
            raise ProtocolError(f"`{event['kind']}` is no kind of event")
        self._stream.write(event["kind"], event["data"])


class Runner:
    """One attempt from its first event to its last."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._assignment = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        self._stream = Stream(folder / "out.jsonl")
        self._log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._began = time.monotonic()
        self._verdict = ""
        self._peak = 0

    def run(self) -> None:
        """Run the named functions in order, each in its own worker, up to the first that fails."""
        signal.signal(signal.SIGTERM, self._interrupt)
        self._stream.write("start", {"runner": os.getpid()})
        ended, reason = Ended(None, 0), OK
        for target in self._assignment["run"]:
            ended, reason = self._supervise(target)
            if reason != OK:
                break
        _processes().kill_marked(self._folder.name)
        self._stream.write(
            "exit",
            {
                "rc": ended.code,
                "reason": reason,
                "peak_rss_bytes": self._peak,
                "seconds": round(time.monotonic() - self._began, 3),
                "log_tail": "" if reason == OK else self._log_tail(),
            },
        )
        self._stream.close()
        os.close(self._log)

    def _interrupt(self, *_: object) -> None:
        self._verdict = self._verdict or INTERRUPTED

    def _supervise(self, target: str) -> tuple[Ended, str]:
        server = self._assignment.get("fork_server")
        if server:
            with suppress(NoForkServerError):
                return self._watch(target, Path(server))
        return self._watch(target, None)

    def _watch(self, target: str, server: Path | None) -> tuple[Ended, str]:
        source, events = os.pipe()
        relay = Relay(source, self._stream)
        relay.start()
        try:
            worker = self._start(target, server, events)
        finally:
            os.close(events)
        ended = self._wait(worker, relay)
        relay.join(5)
        self._peak = max(self._peak, ended.peak_bytes)
        if relay.failure and not self._verdict:
            self._verdict = relay.failure
        return ended, self._verdict or _reason(ended)

    def _start(self, target: str, server: Path | None, events: int) -> Worker:
        if server is None:
            return SpawnedWorker(self._folder, target, events, self._log, environment=os.environ)
        return ForkedWorker(server, self._folder, target, events, self._log, environment=os.environ)

    def _wait(self, worker: Worker, relay: Relay) -> Ended:
        began = time.monotonic()
        next_walk = began + TREE_PERIOD
        tree: Tree | None = None
        while (ended := worker.poll()) is None:
            if tree is None and worker.process_id is not None:
                tree = _processes().Tree(worker.process_id)
                relay.heard = time.monotonic()
                forked = isinstance(worker, ForkedWorker)
                self._stream.write("worker", {"process": worker.process_id, "forked": forked})
            walk = time.monotonic() >= next_walk
            if walk:
                next_walk = time.monotonic() + TREE_PERIOD
            self._verdict = self._verdict or relay.failure or self._breach(tree, walk, relay)
            if tree is None and (self._verdict or time.monotonic() - began > WARM_UP_LIMIT):
                worker.abandon()
                if self._verdict:
                    return Ended(None, 0)
                raise NoForkServerError("the fork server took too long")
            if tree is not None and self._verdict:
                tree.kill()
            if relay.is_alive():
                relay.join(TICK)  # returns as soon as the worker closes its end
            else:
                time.sleep(0.005)
        if tree is not None:
            tree.kill()
        return ended

    def _breach(self, tree: Tree | None, walk: bool, relay: Relay) -> str:
        if (self._folder / "cancel").exists():
            return CANCELLED
        timeout = self._assignment.get("timeout_seconds")
        if timeout and time.monotonic() - self._began > timeout:
            return TIMEOUT
        if tree is None:
            return ""
        silence = self._assignment.get("silence_seconds") or SILENCE_LIMIT
        if time.monotonic() - relay.heard > silence and relay.is_alive():
            return SILENT
        return self._excess(tree, walk)

    def _excess(self, tree: Tree, walk: bool) -> str:
        used = tree.all_bytes() if walk else tree.root_bytes()
        self._peak = max(self._peak, used)
        limit = self._assignment.get("memory_limit_bytes")
        if limit and used > limit:
            return f"memory limit {limit / 1e6:,.0f} MB"
        if walk and os.fstat(self._log).st_size > LOG_LIMIT:
            return f"the log exceeds {LOG_LIMIT:,} bytes"
        return ""

    def _log_tail(self) -> str:
        with (self._folder / "log.txt").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read().decode(errors="replace")


def _processes() -> ModuleType:
    # Imported while the worker is on its way: looking at processes costs a third of the start.
    from backend.jobs import processes

    return processes


def _reason(ended: Ended) -> str:
    if ended.code is None:
        return SERVER_DIED
    if ended.code == 0:
        return OK
    if ended.code > 0:
        return f"exit code {ended.code}"
    try:
        return f"signal {signal.Signals(-ended.code).name}"
    except ValueError:
        return f"signal {-ended.code}"


def main() -> int:
    """Entry of the process. An attempt runs once: a second runner of the same folder leaves."""
    folder = Path(sys.argv[1])
    lock = Lock(folder / "lock")
    # Whoever asks whether this attempt lives holds the lock for a moment: wait that out.
    if lock.acquire(timeout=2) and not (folder / "out.jsonl").exists():
        Runner(folder).run()
    return 0  # and the lock goes with the process


if __name__ == "__main__":
    sys.exit(main())
