"""Jobs on a GPU that is lent: a call for each step, charged to who asked, same results."""

from __future__ import annotations

import contextvars
import sys
import threading
import types

import pytest
from fastapi import FastAPI
from gradio.context import LocalContext
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from backend import lent, rest
from backend.jobs.states import State
from backend.lent import LentLauncher
from backend.service import Service
from tests.page_results import fill
from tests.result_documents import document
from tests.test_jobs_attempts import Bench, until
from ui import page
from ui.asker import Asker


class Lender(types.ModuleType):
    """Stands for `spaces`: what it was asked for, by whom; it refuses as the real one does."""

    def __init__(self):
        super().__init__("spaces")
        self.calls, self.refusal = [], None

    def GPU(self, *, duration):  # noqa: N802 - the name that the real one has
        def decorate(task):
            def call(*arguments):
                request = LocalContext.request.get(None)
                token = request.headers.get("x-ip-token") if request else None
                self.calls.append((arguments[1], duration(*arguments), token))
                if self.refusal:
                    raise self.refusal
                return task(*arguments)

            return call

        return decorate


@pytest.fixture
def lender(monkeypatch):
    stands = Lender()
    monkeypatch.setitem(sys.modules, "spaces", stands)
    return stands


class LentBench(Bench):
    """The same queue, its attempts inside this process."""

    def __init__(self, home, run="run"):
        super().__init__(home, ())
        targets = [f"tests.fake_attempt:{one}" for one in run.split()]
        self.launcher = self.ledger._launcher = LentLauncher(home, targets, preload=())


@pytest.fixture
def bench(tmp_path, lender):
    opened = LentBench(tmp_path / "lent")
    yield opened
    opened.close()


def test_it_is_taken_on_a_space_that_lends_and_nowhere_else(monkeypatch):
    monkeypatch.setattr(lent.importlib.util, "find_spec", lambda name: name == "spaces")
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    assert not lent.lends()
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert lent.lends()
    monkeypatch.setattr(lent.importlib.util, "find_spec", lambda name: None)
    assert not lent.lends()


def test_a_lent_job_ends_as_the_queues_own_does(bench, tmp_path):
    queue = Bench(tmp_path / "queue", ())
    try:
        run_id = "a" * 16
        told = {}
        for each in (bench, queue):
            job_id = each.ledger.submit(run_id, {"run_id": run_id, "mode": "ok"}).job_id
            job = each.finish(job_id)
            assert (job.state, job.reason) == (State.DONE, "")
            kinds = ("progress", "reading", "result")
            events = [
                (one.kind, one.data.get("stage") or one.data.get("name") or one.data.get("run_id"))
                for one in each.ledger.events(job_id)
                if one.kind in kinds
            ]
            told[each] = events, each.store.results.run(run_id)
        assert told[bench] == told[queue]
        assert told[bench][1].recipe == document(run_id)["recipe"]
    finally:
        queue.close()


FAILURES = {
    "polite": "This budget is out of reach: 1.8 bits at least.",
    "exception": "RuntimeError: out of memory on the device",
    "nothing": "It ended without a result.",
    "wrong run": f"The result is of another run, {'f' * 16}.",
}


def test_failures_are_told_in_words_and_the_next_job_runs(bench, lender):
    for mode, reason in FAILURES.items():
        job = bench.finish(bench.submit(mode))
        assert (job.state, job.reason) == (State.FAILED, reason)
        assert ("Traceback" in bench.ledger.log_tail(job.job_id)) == (mode in list(FAILURES)[:2])
    lender.refusal = RuntimeError("You have exceeded your GPU quota")
    job = bench.finish(bench.submit())
    assert job.reason == (
        "The GPU that is lent here was not to be had: You have exceeded your GPU quota"
    )
    lender.refusal = None
    assert bench.finish(bench.submit()).state is State.DONE


def test_a_lent_job_is_cancelled_when_it_next_reports(bench):
    job_id = bench.submit(pause=0.2)
    until(lambda: bench.said(job_id, "progress"))
    bench.ledger.cancel(job_id)
    assert bench.finish(job_id).state is State.CANCELLED
    assert not (bench.folder(job_id) / "events").exists()
    assert bench.store.results.count() == 0


def test_a_lent_job_that_reports_nothing_is_cancelled_soon_all_the_same(bench):
    job_id = bench.submit("ponder")
    until(lambda: (bench.folder(job_id) / "pondering").exists())
    bench.ledger.cancel(job_id)
    assert bench.finish(job_id).state is State.CANCELLED
    assert bench.finish(bench.submit()).state is State.DONE, "the next is not hit by what was left"


def test_what_cancels_a_lent_job_ends_though_it_hits_the_end_itself(tmp_path, monkeypatch):
    hits = []

    class Late(threading.Event):
        def set(self):
            hits.append(self)
            if len(hits) == 1:
                raise lent.CancelledError
            super().set()

    names = ("Lock", "Thread", "get_ident")
    stands = types.SimpleNamespace(Event=Late, **{one: getattr(threading, one) for one in names})
    monkeypatch.setattr(lent, "threading", stands)
    before = threading.active_count()
    with lent._ended_by(tmp_path / "cancel"):
        assert threading.active_count() == before + 1
    assert len(hits) == 2
    until(lambda: threading.active_count() == before)


def test_the_time_asked_for_is_what_the_run_is_expected_to_take(bench, lender):
    for expected in (1.0, 34.2, 900.0):
        bench.finish(bench.submit(predicted={"predicted_seconds": [expected, None, None]}))
    bench.finish(bench.submit())
    assert [seconds for _, seconds, _ in lender.calls] == [20, 35, 110, 110]


def test_the_gpu_is_charged_to_the_visitor_who_asked(tmp_path, lender, monkeypatch):
    """From the header of a request to the call, though the queue works in a thread of its own."""
    monkeypatch.setattr("backend.service.FIRST_RESULTS", tmp_path / "none")
    monkeypatch.setattr(lent, "FETCH", "tests.fake_attempt:first_half")

    def launcher(home):
        return LentLauncher(home, [lent.FETCH, "tests.fake_attempt:run"], preload=())

    with Service(tmp_path / "home", launcher=launcher, slots=1) as service:
        app = FastAPI(**rest.serving(service), middleware=[Middleware(Asker)])
        with TestClient(app) as client:
            for bits, token in ((4, "first"), (5, "second")):
                answer = client.post(
                    "/api/v1/jobs", json={"recipe": f"rtn@{bits}"}, headers={"X-IP-Token": token}
                )
                assert answer.json()["outcome"] == "queued"
            jobs = service.jobs()
            assert {service.wait(job.job_id, 20).state for job in jobs} == {State.DONE}
            assert LocalContext.request.get(None) is None
        assert [token for _, _, token in lender.calls] == ["first", "second"]
        assert {target for target, _, _ in lender.calls} == {"tests.fake_attempt:run"}


def test_the_page_tells_who_asks_only_where_gpus_are_lent(tmp_path):
    with Service(fill(tmp_path), run_jobs=False) as service:
        for lends in (False, True):
            middleware = page.launching(service, lent=lends)["app_kwargs"]["middleware"]
            assert [one.cls for one in middleware].count(Asker) == lends


def test_nobody_is_charged_for_whom_nobody_asked(bench, lender):
    """A job from before a restart has no request; who lends decides what that means."""
    request = contextvars.ContextVar("other", default="nobody's")
    request.set("a visitor's")
    bench.finish(bench.submit())
    assert [token for _, _, token in lender.calls] == [None]
    for number in range(lent.ASKERS + 5):
        bench.launcher.asked(f"{number:016x}")
    assert len(bench.launcher._askers) == lent.ASKERS
