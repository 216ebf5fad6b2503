"""The event stream of an attempt: JSON lines that a worker writes and a runner keeps.

What never enters it: NaN, infinity, an unknown kind, a line beyond one mebibyte.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

KINDS = ("progress", "log", "reading", "generation", "result", "error")
LINE_LIMIT = 2**20
PROGRESS_PERIOD = 0.1  # seconds; a finer bar would only fill the disk

Emit = Callable[[str, dict[str, Any]], None]


class ProtocolError(Exception):
    """A line that breaks the rules of the stream."""


class Emitter:
    """Write events into a pipe, one whole line each; may be called from several threads.

    Progress of one stage is thinned to ten lines a second; its last step always passes.
    """

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        self._turn = threading.Lock()
        self._stage = ""
        self._next_progress = 0.0

    def __call__(self, kind: str, data: Mapping[str, Any]) -> None:
        """Send one event; a number that is not finite becomes null.

        Raises:
            ProtocolError: The kind is unknown, or the line exceeds one mebibyte.
        """
        if kind not in KINDS:
            raise ProtocolError(f"`{kind}` is no kind of event; there are {', '.join(KINDS)}.")
        line = json.dumps({"kind": kind, "data": finite(data)}, allow_nan=False).encode() + b"\n"
        if len(line) > LINE_LIMIT:
            raise ProtocolError(f"An event takes at most {LINE_LIMIT:,} bytes, not {len(line):,}.")
        with self._turn:
            if kind == "progress" and not self._is_due(data):
                return
            while line:
                line = line[os.write(self.descriptor, line) :]

    def beat(self) -> bool:
        """Send an empty line, a sign of life that is no event; False when nobody listens."""
        try:
            with self._turn:
                os.write(self.descriptor, b"\n")
        except OSError:
            return False
        return True

    def _is_due(self, data: Mapping[str, Any]) -> bool:
        now = time.monotonic()
        is_last = data.get("done") == data.get("total")
        if data.get("stage") == self._stage and not is_last and now < self._next_progress:
            return False
        self._stage = data.get("stage", "")
        self._next_progress = now + PROGRESS_PERIOD
        return True


def finite(value: Any) -> Any:
    """The same JSON value with null in place of NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return value


def parse(line: bytes) -> dict[str, Any]:
    """One event from a line, its text mended where it is no Unicode.

    Raises:
        ProtocolError: It is not JSON, or not an object with a kind and data.
    """
    try:
        event = json.loads(line, parse_constant=_refuse_constant)
        if b"\\ud" in line.lower():
            # Half a surrogate pair is legal in Python's JSON, and in nobody else's.
            whole = json.dumps(event, ensure_ascii=False).encode("utf-8", "replace")
            event = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"an event is not JSON: {error}") from None
    if not isinstance(event, dict) or not isinstance(event.get("data"), dict):
        raise ProtocolError("an event is not an object with data")
    if not isinstance(event.get("kind"), str):
        raise ProtocolError("an event has no kind")
    return event


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
