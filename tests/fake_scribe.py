"""A writing process for tests of the desk: writes the words of the prompt, slowly on request."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from backend.jobs.stream import Emitter
from backend.live.channel import Channel


def serve(spec: dict[str, Any], _folder: Path, emit: Emitter) -> None:
    channel = Channel(emit)
    for order in channel.orders(spec["idle_seconds"]):
        if order["prompt"] == "die":
            os._exit(9)
        if order["prompt"] == "refuse":
            channel.tell(order, failed="This cannot be written.")
            continue
        for number, word in enumerate(order["prompt"].split()):
            if word == "slowly":
                while not channel.stopped(order):
                    time.sleep(0.01)
            if channel.stopped(order):
                channel.tell(order, stopped=True)
                break
            channel.tell(order, pane=0, token=number, text=word)
        else:
            channel.tell(order, done=True)
