"""Jobs on a cluster: the same work, the same messages, nothing lost and nothing twice.

Against a stand-in always; against Ray itself where PARETOSCOPE_RAY names its command.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import httpx
import psutil
import pytest

from backend.cluster import SENT, RayLauncher, package
from backend.jobs import ledger as ledger_module
from backend.jobs.dispatcher import Dispatcher
from backend.jobs.errors import JobError
from backend.jobs.launchers import ROOT
from backend.jobs.ledger import Ledger
from backend.jobs.states import State
from backend.store.store import Store
from tests.ray_stand_in import Cluster

RUN = ("tests.fake_attempt:run",)
RAY = os.environ.get("PARETOSCOPE_RAY", "")


@pytest.fixture
def quick_losses(monkeypatch):
    monkeypatch.setattr(ledger_module, "LOSS_PATIENCE", 0.5)


@pytest.fixture
def sent_tests(monkeypatch):
    monkeypatch.setattr("backend.cluster.SENT", ("backend", "tests"))


@pytest.fixture
def cluster(tmp_path, sent_tests):
    found = Cluster(tmp_path / "cluster")
    (tmp_path / "cluster").mkdir()
    yield found
    found.close()


class Bench:
    """A home folder whose queue works on a cluster."""

    def __init__(self, home, address, slots=4):
        self.store = Store(home)
        self.launcher = RayLauncher(address, RUN, cores=0.5)
        self.ledger = Ledger(self.store, self.launcher, slots=slots)
        self.dispatcher = Dispatcher(self.ledger, period=0.05)
        self.dispatcher.start()

    def submit(self, number, **spec):
        run_id = f"{number:016x}"
        return self.ledger.submit(run_id, {"run_id": run_id, **spec}).job_id

    def events(self, job_id):
        return [event.data for event in self.ledger.events(job_id)]

    def close(self):
        self.dispatcher.stop()
        self.launcher.close()
        self.store.close()


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


@pytest.fixture
def bench(tmp_path, cluster, quick_losses):
    found = Bench(tmp_path / "home", cluster.address)
    yield found
    found.close()


def test_a_result_comes_home_as_a_file_of_the_home_folder(bench, cluster):
    job_id = bench.submit(1, pause=0.15)
    assert bench.ledger.wait(job_id, 60).state is State.DONE
    assert (bench.store.home / "results" / f"{1:016x}.json").is_file()
    assert bench.store.results.run(f"{1:016x}").run_id == f"{1:016x}"
    stages = [data["done"] for data in bench.events(job_id) if "done" in data]
    assert stages == [1, 2, 3]
    assert len(cluster.sent) == 1


def test_the_code_travels_once_and_a_name_is_started_once(bench, cluster):
    jobs = [bench.submit(number) for number in (1, 2, 3)]
    assert all(bench.ledger.wait(job, 60).state is State.DONE for job in jobs)
    assert len(cluster.sent) == 1
    name = bench.ledger.job(jobs[0]).name
    bench.launcher.start(name, {"run_id": f"{1:016x}"})
    assert len(cluster.jobs) == 3


def test_a_failure_keeps_its_reason(bench):
    job = bench.ledger.wait(bench.submit(1, mode="exception"), 60)
    assert job.state is State.FAILED
    assert "it is wrong" in job.reason or "Error" in job.reason


def test_cancel_ends_the_work_there(bench, cluster):
    job_id = bench.submit(1, mode="hang", pause=0.15)
    until(lambda: bench.ledger.job(job_id).done == 2)
    bench.ledger.cancel(job_id)
    assert bench.ledger.wait(job_id, 60).state is State.CANCELLED
    process = cluster.jobs[bench.ledger.job(job_id).name]
    until(lambda: process.poll() is not None)


def test_a_machine_that_dies_in_mid_job_costs_one_attempt(bench, cluster):
    job_id = bench.submit(1, pause=0.5)
    until(lambda: bench.ledger.job(job_id).done >= 1)
    os.killpg(cluster.jobs[bench.ledger.job(job_id).name].pid, signal.SIGKILL)
    job = bench.ledger.wait(job_id, 60)
    assert (job.state, job.attempt) == (State.DONE, 2)
    assert bench.store.results.count() == 1


def test_a_program_that_starts_again_finds_its_jobs_there(tmp_path, cluster, quick_losses):
    first = Bench(tmp_path / "home", cluster.address)
    job_id = first.submit(1, pause=0.5)
    until(lambda: first.ledger.job(job_id).done >= 1)
    first.close()
    second = Bench(tmp_path / "home", cluster.address)
    try:
        job = second.ledger.wait(job_id, 60)
        assert (job.state, job.attempt, len(cluster.jobs)) == (State.DONE, 1, 1)
        sequence = [event.seq for event in second.ledger.events(job_id)]
        assert sequence == list(range(len(sequence)))
    finally:
        second.close()


def test_no_cluster_and_no_token_are_told_in_words(tmp_path):
    with pytest.raises(JobError, match="No cluster answers"):
        RayLauncher("http://127.0.0.1:9")
    found = Cluster(tmp_path, token="secret")
    try:
        with pytest.raises(JobError, match="RAY_AUTH_TOKEN"):
            RayLauncher(found.address)
    finally:
        found.close()


def test_a_token_is_sent(tmp_path, monkeypatch):
    found = Cluster(tmp_path, token="secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    try:
        assert not RayLauncher(found.address).started(f"{'a' * 32}-1")
    finally:
        found.close()


def test_a_package_holds_code_and_model_and_no_results():
    assert package(ROOT) == package(ROOT)
    names = set(_names(package(ROOT)))
    assert {name.split("/")[0] for name in names} == set(SENT)
    assert "data/model/config.json" in names
    assert not [name for name in names if "results" in name.split("/") or name.endswith(".pyc")]


def _names(content):
    return zipfile.ZipFile(io.BytesIO(content)).namelist()


@pytest.mark.skipif(not RAY, reason="PARETOSCOPE_RAY names no ray command")
def test_a_real_cluster_loses_a_machine_in_mid_job(tmp_path, sent_tests, quick_losses):
    """A head and two machines: one is killed with what it runs; every job is done, once."""
    environment = os.environ | {"PARETOSCOPE_HOME": str(tmp_path / "node")}
    environment["PATH"] = f"{Path(RAY).parent}:{environment['PATH']}"
    ports = ["--port=26379", "--dashboard-port=28265", "--include-dashboard=true"]

    def ray(*arguments):
        subprocess.run([RAY, *arguments], env=environment, check=True, capture_output=True)

    ray("start", "--head", "--num-cpus=0", *ports)
    try:
        for port in (52366, 52367):
            own = f"--dashboard-agent-listen-port={port}"
            ray("start", "--address=127.0.0.1:26379", "--num-cpus=1", own)
        address = "http://127.0.0.1:28265"
        until(lambda: httpx.get(f"{address}/api/version").is_success)
        bench = Bench(tmp_path / "home", address, slots=8)
        try:
            jobs = [bench.submit(number, pause=1.0) for number in range(1, 7)]
            until(lambda: sum(job.done >= 1 for job in bench.ledger.jobs()) >= 2, 120)
            victim = next(_raylets())
            for child in [*victim.children(recursive=True), victim]:
                child.kill()
            ended = [bench.ledger.wait(job, 240) for job in jobs]
            assert all(job.state is State.DONE for job in ended)
            assert bench.store.results.count() == len(jobs)
            assert max(job.attempt for job in ended) == 2
        finally:
            bench.close()
    finally:
        ray("stop", "--force")


def _raylets():
    """Machines that are not the head: their raylet was told of one core."""
    for process in psutil.process_iter(["name", "cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "raylet/raylet" in line and "CPU,1" in line:
            yield process
