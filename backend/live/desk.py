"""The web process's end: takes wishes for texts, has them written, keeps what was written.

One thread owns the writing process, starts it when it is needed and passes it one wish at a time.
A finished text is a file below `home/writings`, so that its link outlives this program.
"""

from __future__ import annotations

import json
import queue
import select
import socket
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

from backend.errors import ParetoscopeError, UnknownNameError
from backend.jobs.forkserver import ForkServer
from backend.jobs.launchers import worker_environment
from backend.jobs.starting import ForkedWorker, NoForkServerError, SpawnedWorker, Worker
from backend.jobs.stream import parse
from backend.live.records import Wish, Writing

TARGET = "backend.live.scribe:serve"
WAITING = 8  # wishes at a time
REMEMBERED = 64  # texts in memory; older ones are read from their files
KEPT = 1_000  # files
IDLE_SECONDS = 600.0
TICK = 0.05


class DeskFullError(ParetoscopeError):
    """More texts are wished for than can soon be written."""


class Desk:
    """Have texts written, watch them and stop them; a context for one home folder.

    Args:
        home: the home folder.
        fork_server: makes the writing process at once; without one, it is started anew.
        target: what that process calls, as `module:function`.
    """

    def __init__(self, home: Path, fork_server: ForkServer | None, target: str = TARGET) -> None:
        self._target = target
        self._folder, self._kept = home / "live", home / "writings"
        self._fork_server = fork_server
        self._known: OrderedDict[str, Writing] = OrderedDict()
        self._turn = threading.Lock()
        self._wishes: queue.SimpleQueue[Wish | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._scribe: _Scribe | None = None

    def ask(self, wish: Wish, owner: str = "") -> Writing:
        """Have a text written; one that is known or under way is the answer itself.

        An unfinished text of the same owner is stopped: one reader reads one text.

        Raises:
            DeskFullError: too many wait.
        """
        with suppress(UnknownNameError):
            known = self.look(wish.writing_id)
            if known.state in ("queued", "writing", "done"):
                return known
        with self._turn:
            waiting = [one for one in self._known.values() if not one.ended]
            if owner:
                for one in waiting:
                    if one.owner == owner:
                        one.state = "stopped"
            if len([one for one in waiting if not one.ended]) >= WAITING:
                raise DeskFullError(f"{WAITING} texts wait to be written; try again in a minute.")
            writing = Writing(wish.to_json(), owner)
            self._remember(writing)
            self._begin()
        self._wishes.put(wish)
        return writing

    def look(self, writing_id: str) -> Writing:
        """A text as far as it is written.

        Raises:
            UnknownNameError: no such text here.
        """
        with self._turn:
            if writing_id in self._known:
                return self._known[writing_id]
        path = self._kept / f"{writing_id}.json"
        if writing_id.isalnum() and path.is_file():
            with suppress(OSError, ValueError, TypeError):
                found = Writing(**json.loads(path.read_text(encoding="utf-8")))
                with self._turn:
                    self._remember(found)
                return found
        raise UnknownNameError("This text is not here any more; have it written again.")

    def stop(self, writing_id: str) -> Writing:
        """End a text where it is."""
        writing = self.look(writing_id)
        with self._turn:
            if not writing.ended:
                writing.state = "stopped"
        return writing

    def warm_up(self) -> None:
        """Start the writing process ahead of the first wish; never waits."""
        with self._turn:
            self._begin()
        self._wishes.put(None)

    def close(self) -> None:
        """End the writing process."""
        self._closing = True
        if self._thread is not None:
            self._wishes.put(None)
            self._thread.join(5)

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="desk")
            self._thread.start()

    def _remember(self, writing: Writing) -> None:
        self._known[writing.about["writing_id"]] = writing
        while len(self._known) > REMEMBERED:
            oldest = next((key for key, one in self._known.items() if one.ended), None)
            if oldest is None:
                return
            del self._known[oldest]

    def _run(self) -> None:
        # All in one thread: the system ends a started process with the thread that started it.
        while True:
            wish = self._wishes.get()
            if self._closing:
                break
            try:
                if self._scribe is not None and not self._scribe.alive():
                    self._scribe.close()
                    self._scribe = None
                if self._scribe is None:
                    self._scribe = _Scribe(self._folder, self._fork_server, self._target)
                if wish is not None:
                    self._serve(wish, self._scribe)
            except (OSError, ValueError) as error:
                self._lose(wish, str(error))
        if self._scribe is not None:
            self._scribe.close()

    def _serve(self, wish: Wish, scribe: _Scribe) -> None:
        writing = self.look(wish.writing_id)
        if writing.ended:
            return
        scribe.send(wish.to_json())
        told = False
        while True:
            if (writing.ended or self._closing) and not told:
                scribe.send({"stop": wish.writing_id})
                told = True
            for event in scribe.read(TICK):
                if event.pop("writing_id", "") == wish.writing_id and self._take(writing, event):
                    self._keep(writing)
                    return
            if not scribe.alive():
                raise OSError("The writing process ended, perhaps for want of memory; try again.")

    def _take(self, writing: Writing, event: dict[str, Any]) -> bool:
        """Enter an event; whether it was the last."""
        with self._turn:
            if "failed" in event:
                writing.state, writing.reason = "failed", event["failed"]
            elif "stopped" in event:
                writing.state = "stopped"
            elif "done" in event:
                writing.state = "done"
            else:
                writing.state = writing.state if writing.ended else "writing"
                writing.events.append(event)
                return False
        return True

    def _keep(self, writing: Writing) -> None:
        if writing.state != "done":
            return
        self._kept.mkdir(exist_ok=True)
        path = self._kept / f"{writing.about['writing_id']}.json"
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(vars(writing) | {"owner": ""}), encoding="utf-8")
        partial.replace(path)
        files = sorted(self._kept.glob("*.json"), key=lambda one: one.stat().st_mtime)
        for old in files[:-KEPT]:
            old.unlink(missing_ok=True)

    def _lose(self, wish: Wish | None, reason: str) -> None:
        if self._scribe is not None:
            self._scribe.close()
            self._scribe = None
        if wish is not None:
            with self._turn:
                writing = self._known[wish.writing_id]
                writing.state, writing.reason = "failed", reason


class _Scribe:
    """A writing process and the line to it."""

    def __init__(self, folder: Path, fork_server: ForkServer | None, target: str) -> None:
        folder.mkdir(exist_ok=True)
        assignment = {"spec": {"idle_seconds": IDLE_SECONDS}}
        (folder / "spec.json").write_text(json.dumps(assignment), encoding="utf-8")
        self._line, other = socket.socketpair()
        self._rest = b""
        with other, (folder / "log.txt").open("wb") as log:
            line = other.fileno(), log.fileno()
            self._worker = _start(folder, fork_server, target, line)

    def alive(self) -> bool:
        """Whether it still writes."""
        try:
            return self._worker.poll() is None
        except NoForkServerError:
            return False

    def send(self, order: dict[str, Any]) -> None:
        """Pass an order on."""
        self._line.sendall(json.dumps(order).encode() + b"\n")

    def read(self, patience: float) -> list[dict[str, Any]]:
        """Events that have come, after waiting for the first a little."""
        ready, _, _ = select.select([self._line], [], [], patience)
        if not ready:
            return []
        *lines, self._rest = (self._rest + self._line.recv(2**18)).split(b"\n")
        events = map(parse, filter(None, lines))  # an empty line is a sign of life
        return [event["data"] for event in events if event["kind"] == "generation"]

    def close(self) -> None:
        """Hang up and have it end."""
        self._line.close()
        self._worker.abandon()


def _start(
    folder: Path, fork_server: ForkServer | None, target: str, line: tuple[int, int]
) -> Worker:
    path = fork_server.ensure() if fork_server else None
    known = worker_environment()
    if path is not None:
        with suppress(NoForkServerError):
            return ForkedWorker(path, folder, target, *line, environment=known)
    return SpawnedWorker(folder, target, *line, environment=known)
