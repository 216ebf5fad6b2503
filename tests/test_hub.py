"""Whatever a Hub does, it is told in its own sentence, soon, and leaves nothing half fetched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fake_hub import COMMIT, Hub

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.faults, pytest.mark.security]
ASKING = """
import json, resource, signal, sys, time
from backend import hub
from backend.errors import ParetoscopeError
from backend.sources import ModelSource
hub.PATIENCE = 1
for text in sys.argv[2:]:
    began, source = time.monotonic(), ModelSource.parse(text)
    try:
        told = hub.pinned(source)
        if sys.argv[1] == "fetch":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
            told = str(hub.fetch(ModelSource(source.name, None, told)))
    except ParetoscopeError as error:
        told = f"{type(error).__name__}: {error}"
    print(json.dumps([text, told, time.monotonic() - began]), flush=True)
"""


@pytest.fixture(scope="module")
def hub():
    server = Hub()
    yield server
    server.close()


def ask(address, cache, verb, *names):
    """What each model came to, and in how many seconds, in a process that knows this Hub."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", ASKING, verb, *names],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {text: (told, seconds) for text, told, seconds in rows}


SENTENCES = {
    "fake/gated": "ModelError: fake/gated is gated: accept its terms",
    "fake/missing": "ModelError: The Hub has no model 'fake/missing'",
    "fake/unknown@nowhere": "ModelError: fake/unknown has no revision 'nowhere'",
    "fake/limited": "it is asked too often from here; wait some minutes",
    "fake/broken": "it has trouble of its own, status 500; try again later",
    "fake/slow": "it did not answer within 1 seconds",
    "fake/garbage": "what answers speaks no JSON, as the sign-in page",
    "fake/huge": "ResourceError: fake/huge takes 10,000.0 GB and at most",
    "fake/pickled": "ModelError: fake/pickled has no .safetensors weights; pickled ones",
}


def test_every_trouble_of_the_hub_has_its_own_sentence_soon(hub, tmp_path):
    told = ask(hub.address, tmp_path, "ask", *SENTENCES)
    for name, sentence in SENTENCES.items():
        assert sentence in told[name][0], told[name]
        assert told[name][1] < 10, name
    assert len({text for text, _ in told.values()}) == len(SENTENCES)
    for name in ("limited", "broken"):
        assert sum(count for path, count in hub.asked.items() if f"/{name}" in path) <= 3
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_name_is_pinned_to_a_commit_and_fetched_whole(hub, tmp_path):
    assert ask(hub.address, tmp_path, "ask", "fake/sound")["fake/sound"][0] == COMMIT
    folder = Path(ask(hub.address, tmp_path, "fetch", "fake/sound")["fake/sound"][0])
    assert folder.name == COMMIT
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["truncated", "lying"])
def test_a_file_that_is_not_what_was_promised_is_never_taken_for_whole(hub, tmp_path, name):
    told, seconds = ask(hub.address, tmp_path, "fetch", f"fake/{name}")[f"fake/{name}"]
    assert told.startswith("ModelError: "), told
    assert seconds < 30
    assert not [path for path in tmp_path.rglob("*.safetensors") if path.exists()]


def test_without_a_network_what_was_fetched_before_is_used(tmp_path):
    server = Hub()
    ask(server.address, tmp_path, "fetch", "fake/sound")
    address = server.address
    server.close()
    began = time.monotonic()
    told = ask(address, tmp_path, "ask", "fake/sound", "fake/other")
    assert told["fake/sound"][0] == COMMIT
    assert "no way there, ConnectError" in told["fake/other"][0]
    assert "work offline" in told["fake/other"][0]
    assert time.monotonic() - began < 30
