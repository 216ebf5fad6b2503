"""Real attempts in real processes: they end as they should, in words, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest

from backend.jobs import ledger as ledger_module
from backend.jobs.dispatcher import Dispatcher
from backend.jobs.errors import JobError
from backend.jobs.launchers import LocalLauncher, worker_environment
from backend.jobs.ledger import Ledger
from backend.jobs.states import State
from backend.store.store import Store

RUN = "a" * 16
SPAWN, FORK = (), ("json",)


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


def gone(number):
    try:
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Bench:
    """A home folder with its queue at work."""

    def __init__(self, home, preload, run="run"):
        self.home = home
        self.store = Store(home)
        targets = [f"tests.fake_attempt:{one}" for one in run.split()]
        self.launcher = LocalLauncher(home, run=targets, preload=preload)
        self.ledger = Ledger(self.store, self.launcher)
        self.dispatcher = Dispatcher(self.ledger, period=0.02)
        self.dispatcher.start()

    def close(self):
        self.dispatcher.stop()
        for job in self.ledger.jobs():
            if job.active:
                self.launcher.kill(job.name)
                until(lambda name=job.name: not self.launcher.alive(name))
        self.launcher.close()
        self.store.close()

    def submit(self, mode="ok", **limits):
        run_id = os.urandom(8).hex()
        spec = {"run_id": run_id, "mode": mode} | limits
        return self.ledger.submit(run_id, spec).job_id

    def finish(self, job_id):
        job = self.ledger.wait(job_id, 30)
        assert not job.active
        return job

    def folder(self, job_id, attempt=1):
        return self.home / "attempts" / f"{job_id}-{attempt}"

    def said(self, job_id, kind):
        return [event.data for event in self.ledger.events(job_id) if event.kind == kind]

    def hanging(self, job_id, attempt=1):
        """Numbers of the worker that hangs and of its child."""
        note = self.folder(job_id, attempt) / "processes"
        until(lambda: note.exists() and len(note.read_text().split()) == 2)
        return [int(number) for number in note.read_text().split()]


@pytest.fixture
def make(tmp_path):
    made = []

    def bench(preload=SPAWN, run="run"):
        made.append(Bench(tmp_path / "home", preload, run))
        return made[-1]

    yield bench
    for one in made:
        one.close()


@pytest.fixture(scope="module", params=[SPAWN, FORK], ids=["spawned", "forked"])
def bench(request, tmp_path_factory):
    opened = Bench(tmp_path_factory.mktemp("home"), request.param)
    if request.param:
        assert opened.launcher.fork_server.ping(20)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A bench with a fork server, for what does not depend on how a worker began."""
    opened = Bench(tmp_path_factory.mktemp("warm"), FORK)
    assert opened.launcher.fork_server.ping(20)
    yield opened
    opened.close()


def test_a_job_runs_to_its_result(bench):
    job = bench.finish(bench.submit())
    assert (job.state, job.reason, job.attempt) == (State.DONE, "", 1)
    assert (job.stage, job.done, job.total) == ("working", 3, 3)
    assert bench.store.results.run(job.run_id).recipe == "gptq@4"
    assert bench.said(job.job_id, "reading") == [{"name": "kld", "value": None}]
    assert bench.ledger.log_tail(job.job_id) == "the worker speaks\n"
    (ended,) = bench.said(job.job_id, "exit")
    assert (ended["rc"], ended["reason"], ended["log_tail"]) == (0, "ok", "")
    assert ended["peak_rss_bytes"] > 2**20
    assert bench.said(job.job_id, "worker")[0]["forked"] is bool(bench.launcher.fork_server)


FAILURES = {
    "exception": "RuntimeError: out of memory on the device",
    "polite": "This budget is out of reach: 1.8 bits at least.",
    "segv": "signal SIGSEGV",
    "kill": "signal SIGKILL",
    "early": "SystemExit: 0",
    "nothing": "It ended without a result.",
    "wrong run": f"The result is of another run, {'f' * 16}.",
    "outside": "The result lies outside the home folder.",
}


@pytest.mark.faults
def test_every_failure_is_told_in_words_and_the_next_job_runs(bench):
    jobs = {mode: bench.submit(mode) for mode in FAILURES}
    after = bench.submit()
    assert bench.finish(after).state is State.DONE
    ended = {mode: bench.ledger.job(job_id) for mode, job_id in jobs.items()}
    assert {mode: job.reason for mode, job in ended.items()} == FAILURES
    assert {job.state for job in ended.values()} == {State.FAILED}
    assert {job.attempt for job in ended.values()} == {1}
    assert "Segmentation fault" in bench.ledger.log_tail(jobs["segv"])
    assert "Traceback" in bench.ledger.log_tail(jobs["exception"])


def test_a_crash_after_the_result_keeps_the_result(warm):
    assert warm.finish(warm.submit("crash after result")).state is State.DONE


def test_words_outside_the_protocol_end_the_job(warm):
    job = warm.finish(warm.submit("babble"))
    assert job.state is State.FAILED
    assert job.reason.startswith("protocol: an event is not JSON")


def test_a_hanging_job_is_cancelled_within_two_seconds_with_all_its_children(bench):
    job_id = bench.submit("hang")
    processes = bench.hanging(job_id)
    began = time.monotonic()
    bench.ledger.cancel(job_id)
    assert bench.finish(job_id).state is State.CANCELLED
    assert time.monotonic() - began < 2
    assert all(gone(number) for number in processes)


@pytest.mark.faults
def test_a_hanging_job_is_stopped_at_its_time_limit(warm):
    job_id = warm.submit("hang", timeout_seconds=0.8)
    processes = warm.hanging(job_id)
    job = warm.finish(job_id)
    assert (job.state, job.reason) == (State.TIMEOUT, "Stopped after 1 seconds, its limit.")
    assert all(gone(number) for number in processes)


def test_a_job_that_outgrows_its_memory_is_stopped(warm):
    job = warm.finish(warm.submit("memory", memory_limit_bytes=200_000_000))
    assert (job.state, job.reason) == (State.FAILED, "memory limit 200 MB")
    (ended,) = warm.said(job.job_id, "exit")
    assert 200e6 < ended["peak_rss_bytes"] < 2e9


def test_a_killed_runner_takes_its_worker_along_and_the_job_starts_again(bench, monkeypatch):
    monkeypatch.setattr(ledger_module, "LOSS_PATIENCE", 0.1)
    job_id = bench.submit("hang")
    for attempt in (1, 2, 3):
        processes = bench.hanging(job_id, attempt)
        starts = until(lambda n=attempt: bench.said(job_id, "start")[n - 1 : n])
        os.kill(starts[0]["runner"], signal.SIGKILL)
        until(lambda numbers=processes: all(gone(number) for number in numbers), 5)
    job = bench.finish(job_id)
    assert (job.state, job.attempt) == (State.FAILED, 3)
    assert job.reason == "Given up after 3 attempts: its supervisor died."


def test_a_machine_going_down_interrupts_and_the_job_starts_again(warm):
    job_id = warm.submit("wait")
    runner = until(lambda: warm.said(job_id, "start"))[0]["runner"]
    until(lambda: warm.said(job_id, "progress"))
    os.kill(runner, signal.SIGTERM)
    until(lambda: warm.ledger.job(job_id).attempt == 2)
    (warm.home / "go").touch()
    assert warm.finish(job_id).state is State.DONE
    (warm.home / "go").unlink()
    reasons = [data["reason"] for data in warm.said(job_id, "exit")]
    assert reasons == ["interrupted", "ok"]


def test_steps_of_one_attempt_run_in_a_clean_process_each(make):
    bench = make(FORK, "first_half second_half")
    job = bench.finish(bench.submit())
    assert job.state is State.DONE
    first, second = bench.said(job.job_id, "log")[1]["text"].split()
    assert first != second


def test_starting_a_name_twice_runs_it_once(make):
    bench = make()
    bench.dispatcher.stop()
    name = f"{'0' * 32}-1"
    spec = {"run_id": RUN, "mode": "wait"}
    bench.launcher.start(name, spec)
    bench.launcher.start(name, spec)
    until(lambda: bench.launcher.started(name))
    bench.launcher.start(name, spec)
    (bench.home / "go").touch()
    until(lambda: b'"exit"' in bench.launcher.read(name, 0))
    until(lambda: not bench.launcher.alive(name))
    bench.launcher.start(name, spec)
    assert not bench.launcher.alive(name)
    lines = [json.loads(line) for line in bench.launcher.read(name, 0).splitlines()]
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    assert [line["kind"] for line in lines].count("start") == 1


@pytest.mark.security
def test_workers_see_no_secret(make, monkeypatch):
    for name in ("HF_TOKEN", "HF_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHON_API_KEY", "MY_VAR"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for preload in (SPAWN, FORK):
        bench = make(preload, "describe")
        job_id = bench.submit()
        assert bench.finish(job_id).state is State.DONE
        facts = json.loads((bench.folder(job_id) / "facts.json").read_text())
        assert "secret" not in facts["environment"].values()
        assert facts["environment"]["CUDA_VISIBLE_DEVICES"] == ""
        bench.close()
        bench.close = lambda: None


def test_only_the_name_of_an_attempt_reaches_the_disk(make):
    launcher = make().launcher
    for name in ("../../etc", "a-1", "0" * 32, f"{'0' * 32}-1/..", ""):
        with pytest.raises(JobError, match="not the name"):
            launcher.kill(name)


def test_an_interrupted_program_leaves_no_work_behind(make):
    bench = make(FORK)
    bench.launcher.warm_up()
    job_id = bench.submit("hang")
    processes = bench.hanging(job_id)
    bench.dispatcher.stop()
    bench.ledger.interrupt()
    assert bench.ledger.job(job_id).state is State.QUEUED
    assert all(gone(number) for number in processes)


def test_an_environment_may_be_added_to():
    assert worker_environment({"HF_HUB_OFFLINE": "1"})["HF_HUB_OFFLINE"] == "1"
