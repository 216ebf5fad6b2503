"""Attempts inside this process, on a GPU that is lent to whoever asked: a Space with ZeroGPU.

There a GPU exists only within a call of a function that `spaces.GPU` decorates, which is charged to
the visitor in whose request it is made; so the runner's processes cannot have one. Each step is one
such call, in the context of the request that asked for the job. A call that is cancelled ends
between two steps of the interpreter. Nothing here ends one that hangs within a library: ZeroGPU
does, at the end of the time for which the GPU was lent.
"""

from __future__ import annotations

import contextvars
import ctypes
import importlib
import importlib.util
import json
import math
import os
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from backend.jobs.confinement import shortage
from backend.jobs.forkserver import MODULES
from backend.jobs.launchers import FETCH, RUN, LocalLauncher, assignment
from backend.jobs.runner import CANCELLED, OK, TAIL_BYTES, Stream
from backend.jobs.stream import Emitter, ProtocolError, parse
from backend.jobs.worker import find

FAILED = "exit code 1"  # as a worker's end is told
SHORTEST, LONGEST = 20, 110  # seconds; a visitor without an account has 120 a day
PERIOD = 0.1  # seconds between looks at what a call reports
ASKERS = 64  # requests kept, for jobs that wait


class CancelledError(Exception):
    """Somebody wants the attempt to end."""


def lends() -> bool:
    """Whether this is a Space with ZeroGPU, whose package is here."""
    told = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
    return told and importlib.util.find_spec("spaces") is not None


class LentLauncher(LocalLauncher):
    """Attempts as calls that a GPU is lent to, one thread each, below `home/attempts`.

    Args:
        home: the home folder.
        run: what is called in order, as `module:function`; fetching needs no GPU.
        preload: modules imported ahead, as every call begins with a copy of this process.
    """

    def __init__(
        self, home: Path, run: Sequence[str] = RUN, preload: Sequence[str] = MODULES
    ) -> None:
        import spaces  # before torch, which it prepares

        super().__init__(home, run, preload=())
        self._preload = tuple(preload)
        self._perform: Callable[[str, str], str] = spaces.GPU(duration=_seconds)(perform)
        self._askers: OrderedDict[str, contextvars.Context] = OrderedDict()
        self._threads: dict[str, threading.Thread] = {}

    def asked(self, run_id: str) -> None:
        """Keep the request that this is called in: its visitor's time is used for the run."""
        self._askers[run_id] = contextvars.copy_context()
        self._askers.move_to_end(run_id)
        while len(self._askers) > ASKERS:
            self._askers.popitem(last=False)

    def start(self, name: str, spec: Mapping[str, Any]) -> None:
        """Begin the attempt, unless it has begun."""
        folder = self._attempt(name)
        if self.started(name) or self.alive(name):
            return
        folder.mkdir(parents=True, exist_ok=True)
        order = json.dumps(assignment(spec, self._run, None), allow_nan=False)
        (folder / "spec.json").write_text(order, encoding="utf-8")
        context = self._askers.pop(str(spec.get("run_id")), None) or contextvars.Context()
        thread = threading.Thread(target=context.run, args=(self._supervise, folder), daemon=True)
        self._threads[name] = thread
        thread.start()

    def alive(self, name: str) -> bool:
        """Whether its thread lives."""
        self._threads = {one: each for one, each in self._threads.items() if each.is_alive()}
        return name in self._threads

    def kill(self, name: str) -> None:
        """Leave the sign at which the attempt ends, though it reports nothing."""
        folder = self._attempt(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cancel").touch()

    def warm_up(self) -> None:
        """Import what every call needs, in the background."""
        threading.Thread(target=_import, args=(self._preload,), daemon=True).start()

    def close(self) -> None:
        """Ask all that run to end; they are part of this process and end with it."""
        for name in self._threads:
            self.kill(name)

    def _supervise(self, folder: Path) -> None:
        began, reason = time.monotonic(), OK
        stream = Stream(folder / "out.jsonl")
        stream.write("start", {"runner": os.getpid()})
        stream.write("worker", {"process": os.getpid(), "forked": True})
        for target in self._run:
            reason = self._step(folder, target, stream)
            if reason != OK:
                break
        log = folder / "log.txt"
        told = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        ended = {"rc": 0 if reason == OK else 1, "reason": reason, "peak_rss_bytes": 0}
        ended["seconds"] = round(time.monotonic() - began, 3)
        stream.write("exit", ended | {"log_tail": told[-TAIL_BYTES:]})
        stream.close()

    def _step(self, folder: Path, target: str, stream: Stream) -> str:
        """One call, what it reports carried into the stream; how it ended."""
        place = folder / "events"
        place.write_bytes(b"")
        relay = _Relay(place, stream)
        relay.start()
        call = perform if target == FETCH else self._perform
        try:
            reason = call(str(folder), target)
        except Exception as error:  # noqa: BLE001 - refused, or ended by who lends: told in words
            _note(folder)
            message = f"The GPU that is lent here was not to be had: {_words(error)}"
            told = {"type": type(error).__name__, "message": message, "user_facing": True}
            stream.write("error", told)
            reason = FAILED
        finally:
            relay.end()
            place.unlink()
        return relay.failure or reason


class _Relay(threading.Thread):
    """Carry events from a file into the stream, as long as a call lasts.

    No pipe: whoever lends keeps the process of a call, and so would keep the pipe open.
    """

    def __init__(self, path: Path, stream: Stream) -> None:
        super().__init__(daemon=True)
        self.failure = ""
        self._path, self._stream = path, stream
        self._over = threading.Event()

    def end(self) -> None:
        """Carry what is left, and stop."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Look for new lines until the end."""
        with self._path.open("rb") as file:
            rest, last = b"", False
            while not last and not self.failure:
                last = self._over.wait(PERIOD)
                *lines, rest = (rest + file.read()).split(b"\n")
                try:
                    for line in lines:
                        event = parse(line)
                        self._stream.write(event["kind"], event["data"])
                except ProtocolError as error:
                    self.failure = f"protocol: {error}"


def perform(folder: str, target: str) -> str:
    """Run the named function on the assignment in a folder; returns how it ended.

    Whatever process this is, it is not the attempt's own: it stays as it was.
    """
    place = Path(folder)
    events = os.open(place / "events", os.O_WRONLY | os.O_APPEND)
    emit = Emitter(events)

    def report(kind: str, data: dict[str, Any]) -> None:
        if (place / "cancel").exists():
            raise CancelledError
        emit(kind, data)

    try:
        spec = json.loads((place / "spec.json").read_text(encoding="utf-8"))["spec"]
        with _ended_by(place / "cancel"):
            find(target)(spec, place, report)
    except CancelledError:
        return CANCELLED
    except Exception as error:  # noqa: BLE001 - told to the stream and the log
        _note(place)
        told = shortage(error)
        message = told or str(error)
        polite = bool(told) or getattr(error, "user_facing", False) is True
        emit("error", {"type": type(error).__name__, "message": message, "user_facing": polite})
        return FAILED
    finally:
        os.close(events)
    return OK


@contextmanager
def _ended_by(sign: Path) -> Iterator[None]:
    """Raise `CancelledError` in this thread once a file is there, though nothing is reported.

    A thread that looks for it has it raised between two steps of the interpreter, again and again
    should somebody catch it.
    """
    over, turn = threading.Event(), threading.Lock()
    here = ctypes.c_ulong(threading.get_ident())

    def watch() -> None:
        while not over.wait(PERIOD):
            with turn:
                if sign.exists() and not over.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        here, ctypes.py_object(CancelledError)
                    )

    watcher = threading.Thread(target=watch, daemon=True)
    try:
        watcher.start()
        yield
    finally:
        ended = False
        while not ended:  # one may be raised here as well, and the watcher must end all the same
            try:
                with turn:
                    over.set()
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(here, None)  # nor any on its way
                    ended = True
            except CancelledError:  # raised within a `suppress` it would get away
                pass


def _seconds(folder: str, _: str) -> int:
    """How long the GPU is wanted: what the run is expected to take, within bounds."""
    spec = json.loads((Path(folder) / "spec.json").read_text(encoding="utf-8"))["spec"]
    expected = spec.get("predicted", {}).get("predicted_seconds", [LONGEST])[0]
    return min(LONGEST, max(SHORTEST, math.ceil(expected)))


def _note(folder: Path) -> None:
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        traceback.print_exc(file=log)


def _words(error: Exception) -> str:
    return str(getattr(error, "message", "") or error)


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        with suppress(ImportError):
            importlib.import_module(module)
