"""The writing process's end of the line to the desk: orders in, events out; imports no torch."""

from __future__ import annotations

import json
import os
import select
from collections import deque
from collections.abc import Iterator
from typing import Any

from backend.jobs.stream import Emitter


class Channel:
    """Orders and stops, read from the descriptor that events go out by."""

    def __init__(self, emit: Emitter) -> None:
        self._emit = emit
        self._rest = b""
        self._orders: deque[dict[str, Any]] = deque()
        self._stops: set[str] = set()
        self._open = True

    def orders(self, idle_seconds: float) -> Iterator[dict[str, Any]]:
        """Each order in turn, until the desk hangs up or is silent for too long."""
        while self._orders or (self._open and self._read(idle_seconds)):
            while self._orders:
                yield self._orders.popleft()

    def stopped(self, order: dict[str, Any]) -> bool:
        """Whether the desk wants no more of this, or is gone."""
        self._read(0.0)
        return not self._open or order["writing_id"] in self._stops

    def tell(self, order: dict[str, Any], **event: Any) -> None:
        """Send one event of a text."""
        self._emit("generation", {"writing_id": order["writing_id"], **event})

    def _read(self, patience: float) -> bool:
        """Take in what has come; whether anything did."""
        ready, _, _ = select.select([self._emit.descriptor], [], [], patience)
        if not ready:
            return False
        chunk = os.read(self._emit.descriptor, 65536)
        self._open = bool(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            if "stop" in asked:
                self._stops.add(asked["stop"])
            else:
                self._stops.discard(asked["writing_id"])
                self._orders.append(asked)
        return True
