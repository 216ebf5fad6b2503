"""A ledger of jobs whose attempts are mere records in memory."""

from __future__ import annotations

import json

import pytest

from backend.jobs import ledger as ledger_module
from backend.jobs.ledger import Ledger
from backend.store.documents import write_document
from backend.store.store import Store
from tests.result_documents import document

RUN, OTHER, THIRD = "a" * 16, "b" * 16, "c" * 16


class Stage:
    """A launcher whose attempts do what the test says, and nothing else."""

    def __init__(self):
        self.streams = {}
        self.living = set()
        self.starts = []
        self.killed = []
        self.chunk = 10**9

    def start(self, name, spec):
        self.starts.append(name)
        if name not in self.streams:
            self.streams[name] = b""
            self.living.add(name)
            self.say(name, "start", {})

    def alive(self, name):
        return name in self.living

    def started(self, name):
        return name in self.streams

    def read(self, name, offset):
        part = self.streams.get(name, b"")[offset : offset + self.chunk]
        return part[: part.rfind(b"\n") + 1]

    def kill(self, name):
        self.killed.append(name)

    def say(self, name, kind, data):
        seq = self.streams[name].count(b"\n")
        event = {"seq": seq, "time": 1.0 + seq, "kind": kind, "data": data}
        self.streams[name] += json.dumps(event).encode() + b"\n"

    def end(self, name, reason="ok", rc=0):
        data = {"rc": rc, "reason": reason, "seconds": 1.5, "log_tail": "the tail"}
        self.say(name, "exit", data)
        self.living.discard(name)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path) as opened:
        yield opened


@pytest.fixture
def stage():
    return Stage()


@pytest.fixture
def ledger(store, stage, monkeypatch):
    monkeypatch.setattr(ledger_module, "LOSS_PATIENCE", 0.0)
    return Ledger(store, stage)


def finish(store, stage, name, run_id):
    path = write_document(store.results.folder, document(run_id))
    stage.say(name, "result", {"run_id": run_id, "path": str(path)})
    stage.end(name)
