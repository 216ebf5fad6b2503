"""Whatever is killed and whenever: no accepted job is lost, none runs twice, nothing is left."""

from __future__ import annotations

import collections
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from backend.jobs.launchers import LocalLauncher
from backend.jobs.ledger import Ledger
from backend.jobs.states import State
from backend.store.store import Store
from tests.nightly.program import processes_of
from tests.test_jobs_attempts import gone, until

pytestmark = pytest.mark.faults


def owner(home, *arguments):
    """The program that owns the home folder, as a process that can be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.queue_owner", str(home), *map(str, arguments)],
        stdout=subprocess.PIPE,
    )


def processes_below(home):
    return {n: kind for n, kind in processes_of(home).items() if kind in ("runner", "worker")}


@pytest.mark.parametrize("preload", ["", "json"], ids=["spawned", "forked"])
def test_a_running_job_outlives_its_owner_and_is_adopted(tmp_path, preload):
    with owner(tmp_path, "wait", 1, preload) as first:
        job_id = first.stdout.readline().split()[2].decode()
        folder = tmp_path / "attempts" / f"{job_id}-1"
        stream = folder / "out.jsonl"
        until(lambda: stream.exists() and b'"progress"' in stream.read_bytes())
        first.kill()
    with Store(tmp_path) as store:
        launcher = LocalLauncher(tmp_path, preload=())
        ledger = Ledger(store, launcher)
        assert launcher.alive(f"{job_id}-1")
        (tmp_path / "go").touch()

        def done():
            ledger.step()
            return not ledger.job(job_id).active

        until(done)
        job = ledger.job(job_id)
        assert (job.state, job.attempt) == (State.DONE, 1)
        assert [event.seq for event in ledger.events(job_id)] == list(range(job.event_count))
        launcher.close()
    until(lambda: not processes_below(tmp_path))
    until(lambda: not list(tmp_path.glob("fork-*.sock")))


def test_a_refused_second_owner_does_no_harm(tmp_path):
    with owner(tmp_path, "wait", 1, "") as first:
        assert first.stdout.readline().startswith(b"ACCEPTED")
        second = subprocess.run(
            [sys.executable, "-m", "tests.queue_owner", str(tmp_path), "ok", "1", ""],
            capture_output=True,
            text=True,
        )
        assert second.returncode == 3
        assert f"in use by process {first.pid}" in second.stderr
        (tmp_path / "go").touch()
        assert first.wait(30) == 0


def test_seconds_of_killing_lose_and_double_nothing(tmp_path):
    chance = random.Random(7)
    accepted, kills = {}, collections.Counter()
    began, drained = time.monotonic(), False
    total = 10
    while not drained:
        process = owner(tmp_path, "ok", total, "json")
        enough = kills["owner"] >= 3 and kills["runner"] and kills["worker"]
        killing = time.monotonic() - began < (6 if enough else 40)
        longer = 1 + kills["owner"] / 8  # until a slow machine has a worker to be killed
        life = time.monotonic() + (longer * chance.uniform(0.5, 2.5) if killing else 60)
        while process.poll() is None and time.monotonic() < life:
            time.sleep(chance.uniform(0.02, 0.2))
            victims = processes_below(tmp_path)
            if killing and victims and chance.random() < 0.4:
                seldom = min(kills[kind] for kind in victims.values())
                number = min(n for n, kind in victims.items() if kills[kind] == seldom)
                try:
                    os.kill(number, signal.SIGKILL)
                    kills[victims[number]] += 1
                except ProcessLookupError:
                    pass
        if process.poll() is None:
            process.kill()
            kills["owner"] += 1
        for line in process.communicate()[0].splitlines():
            if line.startswith(b"ACCEPTED "):
                _, run_id, job_id = line.decode().split()
                assert accepted.setdefault(run_id, job_id) == job_id
        drained = process.returncode == 0
        assert time.monotonic() - began < 120
    assert kills["owner"] >= 3
    assert kills["runner"]
    assert kills["worker"]

    with Store(tmp_path) as store:
        ledger = Ledger(store, LocalLauncher(tmp_path, preload=()))
        jobs = {job.job_id: job for job in ledger.jobs()}
        assert set(accepted.values()) == set(jobs)
        assert len({job.run_id for job in jobs.values()}) == len(jobs) == total
        done = {job.run_id for job in jobs.values() if job.state is State.DONE}
        assert done == set(store.results.runs()["run_id"])
        spans = []
        for job in jobs.values():
            # A killed worker is the job's own failure; a killed runner is not.
            assert job.state is State.DONE or job.reason == "signal SIGKILL", job
            events = ledger.events(job.job_id)
            assert [event.number for event in events] == list(range(1, job.event_count + 1))
            for attempt in {event.attempt for event in events}:
                own = [event for event in events if event.attempt == attempt]
                assert [event.seq for event in own] == list(range(len(own)))
                spans.append((own[0].time, own[-1].time))
        spans.sort()
        for (_, ended), (started, _) in itertools.pairwise(spans):
            assert started > ended - 1e-3, "two attempts overlapped on one slot"
    assert not [number for number in processes_below(tmp_path) if not gone(number)]


def test_a_stream_torn_by_a_power_cut_is_read_to_its_last_whole_line(tmp_path):
    with Store(tmp_path) as store:
        launcher = LocalLauncher(tmp_path, preload=())
        ledger = Ledger(store, launcher)
        job_id = ledger.submit("a" * 16, {"run_id": "a" * 16}, max_attempts=1).job_id
        launcher.start = lambda name, spec: None
        ledger.step()
        folder = tmp_path / "attempts" / f"{job_id}-1"
        folder.mkdir(parents=True)
        line = json.dumps({"seq": 0, "time": 1.0, "kind": "start", "data": {}}).encode()
        (folder / "out.jsonl").write_bytes(line + b"\n" + line[:20])

        def over():
            ledger.step()
            return not ledger.job(job_id).active

        until(over)
        assert ledger.job(job_id).state is State.FAILED
        assert [event.kind for event in ledger.events(job_id)] == ["start"]
