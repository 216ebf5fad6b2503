"""A forked worker is as clean as a new interpreter, and neither it nor its server lingers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from backend.jobs.forkserver import ForkServer, connect
from backend.jobs.launchers import worker_environment
from backend.jobs.states import State
from tests.test_jobs_attempts import FORK, Bench, gone, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forking needs Linux")


@pytest.fixture
def server(tmp_path):
    made = ForkServer(tmp_path, worker_environment(), ("json",))
    yield made
    made.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    # A folder deeper than a socket's address may be.
    opened = Bench(tmp_path_factory.mktemp("fork") / ("deep" * 30) / "home", FORK, "describe")
    assert opened.launcher.fork_server.ping(20)
    yield opened
    opened.close()


def facts_of(bench):
    job_id = bench.submit()
    assert bench.finish(job_id).state is State.DONE
    assert bench.said(job_id, "worker")[0]["forked"]
    return job_id, json.loads((bench.folder(job_id) / "facts.json").read_text())


def test_a_forked_worker_is_a_clean_process(bench):
    job_id, facts = facts_of(bench)
    assert facts["parent"] == bench.launcher.fork_server.process_id
    assert facts["session"] == facts["process"]
    assert facts["folder"] == str(bench.folder(job_id))
    assert facts["threads"] == 2  # its own, and the one that gives signs of life
    assert facts["child_signal"] == "0"
    assert not {"duckdb", "gradio", "torch", "transformers"} & set(facts["modules"])
    # Standard streams, the event pipe, and the folder being listed: nothing of the server's.
    assert len(facts["descriptors"]) == 5, facts["descriptors"]
    assert bench.ledger.log_tail(job_id) == "printed\ncomplained\n"


def test_each_worker_is_a_new_process_with_chance_of_its_own(bench):
    _, first = facts_of(bench)
    _, second = facts_of(bench)
    assert first["process"] != second["process"]
    assert first["random"] != second["random"]
    assert first["parent"] == second["parent"]


def test_the_environment_of_a_forked_worker_is_its_runners(bench):
    _, facts = facts_of(bench)
    assert facts["environment"]["PYTHONUNBUFFERED"] == "1"


def test_a_dead_server_takes_its_worker_along_and_the_job_starts_again(tmp_path):
    bench = Bench(tmp_path, FORK)
    try:
        assert bench.launcher.fork_server.ping(20)
        job_id = bench.submit("hang")
        worker, child = bench.hanging(job_id)
        os.kill(bench.launcher.fork_server.process_id, signal.SIGKILL)
        until(lambda: gone(worker), 5)
        until(lambda: bench.ledger.job(job_id).attempt == 2)
        assert bench.said(job_id, "exit")[0]["reason"] == "fork server died"
        until(lambda: gone(child), 5)
        bench.hanging(job_id, 2)
    finally:
        bench.close()


def test_without_a_server_the_worker_is_spawned(bench, monkeypatch):
    monkeypatch.setattr(bench.launcher.fork_server, "ensure", lambda: bench.home / "none.sock")
    job = bench.finish(bench.submit())
    assert job.state is State.DONE
    assert bench.said(job.job_id, "worker")[0]["forked"] is False


def test_a_server_whose_imports_start_a_thread_is_unfit_and_not_tried_again(tmp_path):
    bench = Bench(tmp_path, ("tests.threaded_import",), "describe")
    try:
        job = bench.finish(bench.submit())
        assert job.state is State.DONE
        assert bench.said(job.job_id, "worker")[0]["forked"] is False
        assert bench.launcher.fork_server.ensure() is None
    finally:
        bench.close()


def test_an_import_that_fails_does_not_stop_the_server(tmp_path):
    server = ForkServer(tmp_path, worker_environment(), ("no_such_module", "json"))
    assert server.ping(20)
    server.close()
    assert "no_such_module" in (tmp_path / "fork-server.log").read_text()


def test_it_ends_when_it_is_closed_and_leaves_no_socket(server, tmp_path):
    assert server.ping(20)
    number = server.process_id
    server.close()
    until(lambda: gone(number), 5)
    assert not list(tmp_path.glob("*.sock"))
    assert server.process_id is None


def test_it_ends_while_it_still_imports(tmp_path):
    server = ForkServer(tmp_path, worker_environment(), ("tests.endless_import",))
    server.ensure()
    number = server.process_id
    server.close()
    until(lambda: gone(number), 5)


def test_it_ends_when_its_owner_is_killed(tmp_path):
    code = (
        "import sys, pathlib; from backend.jobs.launchers import LocalLauncher\n"
        "one = LocalLauncher(pathlib.Path(sys.argv[1]), preload=('json',))\n"
        "one.fork_server.ping(20); print(one.fork_server.process_id, flush=True)\n"
        "sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        number = int(owner.stdout.readline())
        assert not gone(number)
        owner.kill()
    until(lambda: gone(number), 5)


def test_it_ends_when_nobody_asks_for_anything_and_comes_back_on_demand(tmp_path):
    server = ForkServer(tmp_path, worker_environment(), ("json",), idle_seconds=0.3)
    assert server.ping(20)
    first = server.process_id
    until(lambda: server.process_id is None)
    assert server.ping(20)
    assert server.process_id != first
    server.close()


def test_a_request_that_makes_no_sense_is_hung_up_on(server):
    assert server.ping(20)
    for nonsense in (b"", b"{", b"[]", *[b'{"folder": 1}'] * 20):
        with connect(server.ensure()) as connection:
            connection.settimeout(5)
            connection.send(nonsense)
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass
    assert server.ping(5)


def test_many_ask_at_once(server):
    assert server.ping(20)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(server.ping(20))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 20
