"""The ledger's decisions: who joins, waits, runs, stops and is remembered."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from backend.jobs.dispatcher import Dispatcher
from backend.jobs.errors import IllegalMoveError, QueueFullError, UnknownJobError
from backend.jobs.ledger import Ledger
from backend.jobs.records import Outcome
from backend.jobs.states import State
from tests.result_documents import document
from tests.staged import OTHER, RUN, THIRD, finish


def test_a_job_goes_from_the_queue_to_its_result(ledger, stage, store):
    submission = ledger.submit(RUN, {"x": 1}, owner="ann", model="tales", recipe="gptq@4")
    assert submission.outcome is Outcome.QUEUED
    assert ledger.job(submission.job_id).state is State.QUEUED
    ledger.step()
    job = ledger.job(submission.job_id)
    assert (job.state, job.attempt, job.owner, job.spec) == (State.RUNNING, 1, "ann", {"x": 1})
    stage.say(job.name, "progress", {"stage": "layer 1", "done": 3, "total": 12})
    ledger.step()
    job = ledger.job(submission.job_id)
    assert (job.stage, job.done, job.total) == ("layer 1", 3, 12)
    finish(store, stage, job.name, RUN)
    ledger.step()
    job = ledger.job(submission.job_id)
    assert (job.state, job.reason) == (State.DONE, "")
    assert store.results.known(RUN)
    assert [event.kind for event in ledger.events(job.job_id)] == [
        "start",
        "progress",
        "result",
        "exit",
    ]


def test_the_same_run_is_joined_while_active_and_cached_when_done(ledger, stage, store):
    first = ledger.submit(RUN, {}, owner="ann")
    assert ledger.submit(RUN, {}, owner="bob").job_id == first.job_id
    ledger.step()
    again = ledger.submit(RUN, {}, owner="bob")
    assert (again.job_id, again.outcome) == (first.job_id, Outcome.JOINED)
    finish(store, stage, f"{first.job_id}-1", RUN)
    ledger.step()
    again = ledger.submit(RUN, {})
    assert (again.job_id, again.outcome) == (first.job_id, Outcome.CACHED)
    assert len(ledger.jobs()) == 1


def test_a_result_that_came_without_a_job_is_cached_too(ledger, store):
    store.results.add(document(RUN))
    submission = ledger.submit(RUN, {})
    assert (submission.job_id, submission.outcome) == ("", Outcome.CACHED)


@pytest.mark.faults
def test_fifty_submissions_at_once_make_one_job(ledger):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(ledger.submit(RUN, {}).job_id))
        for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 50
    assert len(set(found)) == 1


def test_owners_take_turns_and_priority_goes_first(ledger, stage, store):
    order = "AAAABBC"
    for number, owner in enumerate(order):
        ledger.submit(f"{number:016x}", {}, owner=owner)
    ledger.submit("f" * 16, {}, owner="A", priority=1)
    served = []
    for _ in range(8):
        ledger.step()
        (job,) = [one for one in ledger.jobs() if one.state is State.RUNNING]
        served.append(job.owner + "!" * job.priority)
        finish(store, stage, job.name, job.run_id)
        ledger.step()
    ledger.step()
    assert served == ["A!", "B", "C", "A", "B", "A", "A", "A"]


def test_slots_and_owner_slots_bound_what_runs(store, stage):
    ledger = Ledger(store, stage, slots=3, owner_slots=2)
    for number, owner in enumerate("AAAB"):
        ledger.submit(f"{number:016x}", {}, owner=owner)
    ledger.step()
    running = [job.owner for job in ledger.jobs() if job.state is State.RUNNING]
    assert sorted(running) == ["A", "A", "B"]
    assert ledger.counts()[State.QUEUED] == 1


def test_a_step_that_finds_all_slots_taken_changes_nothing_for_readers(ledger, store):
    for number in range(3):
        ledger.submit(f"{number:016x}", {})
    ledger.step()
    ledger.step()
    before = store.database.commits
    for _ in range(3):
        ledger.step()
    assert store.database.commits == before
    assert ledger.counts()[State.QUEUED] == 2


@pytest.mark.security
def test_a_full_queue_refuses_by_a_sentence(store, stage):
    ledger = Ledger(store, stage, queue_limit=3, owner_queue_limit=2)
    ledger.submit(RUN, {}, owner="ann")
    ledger.submit(OTHER, {}, owner="ann")
    with pytest.raises(QueueFullError, match="2 of your jobs"):
        ledger.submit(THIRD, {}, owner="ann")
    ledger.submit(THIRD, {}, owner="bob")
    with pytest.raises(QueueFullError, match="3 jobs wait"):
        ledger.submit("d" * 16, {}, owner="eve")
    assert ledger.submit(RUN, {}, owner="ann").outcome is Outcome.JOINED


def test_a_waiting_job_is_cancelled_at_once_and_retried_on_request(ledger, stage):
    job_id = ledger.submit(RUN, {}).job_id
    assert ledger.cancel(job_id).state is State.CANCELLED
    ledger.step()
    assert stage.starts == []
    assert ledger.retry(job_id).outcome is Outcome.QUEUED
    ledger.step()
    assert stage.starts == [f"{job_id}-1"]
    with pytest.raises(IllegalMoveError, match="running cannot retry"):
        ledger.retry(job_id)


def test_a_retry_joins_what_has_come_up_meanwhile(ledger):
    old = ledger.submit(RUN, {}).job_id
    ledger.cancel(old)
    new = ledger.submit(RUN, {}).job_id
    assert new != old
    assert ledger.retry(old).job_id == new


def test_a_running_job_is_told_to_stop_and_ends_cancelled(ledger, stage):
    job_id = ledger.submit(RUN, {}).job_id
    ledger.step()
    assert ledger.cancel(job_id).cancel
    assert stage.killed == [f"{job_id}-1"]
    stage.end(f"{job_id}-1", "cancelled", rc=-9)
    ledger.step()
    job = ledger.job(job_id)
    assert (job.state, job.reason) == (State.CANCELLED, "cancelled")
    assert ledger.cancel(job_id) == job


def test_a_wish_to_stop_that_comes_during_a_step_is_heard(ledger, stage, monkeypatch):
    job_id = ledger.submit(RUN, {}).job_id
    ledger.step()
    name = f"{job_id}-1"

    def cancel_then_read(one, offset):
        monkeypatch.undo()
        ledger.cancel(job_id)
        stage.end(name, "cancelled", rc=-9)
        return stage.read(one, offset)

    monkeypatch.setattr(stage, "read", cancel_then_read)
    ledger.step()
    assert ledger.job(job_id).state is State.CANCELLED


def test_an_interrupted_queue_stops_its_work_and_takes_it_up_again(ledger, store, stage):
    job_id = ledger.submit(RUN, {}, max_attempts=1).job_id
    ledger.submit(OTHER, {})
    ledger.step()
    stage.kill = lambda name: stage.living and stage.end(name, "cancelled", rc=-9)
    ledger.interrupt()
    job = ledger.job(job_id)
    assert (job.state, job.reason) == (
        State.QUEUED,
        "It was interrupted and will be tried again.",
    )
    assert stage.starts == [f"{job_id}-1"]
    Ledger(store, stage, slots=2).step()
    assert f"{job_id}-2" in stage.starts


def test_polling_by_revision_shows_only_what_changed(ledger, stage):
    first, second = (ledger.submit(run, {}).job_id for run in (RUN, OTHER))
    seen = ledger.revision()
    assert ledger.jobs(since=seen) == []
    ledger.cancel(second)
    assert [job.job_id for job in ledger.jobs(since=seen)] == [second]
    assert ledger.revision() > seen
    assert [job.job_id for job in ledger.jobs()] == [second, first]
    assert ledger.jobs(owner="nobody") == []


def test_failed_jobs_can_stand_among_the_runs(ledger, stage, store):
    job_id = ledger.submit(RUN, {}, model="tales", recipe="gptq@2", family="quantise").job_id
    ledger.step()
    stage.end(f"{job_id}-1", "signal SIGSEGV", -11)
    ledger.step()
    store.results.add(document(OTHER))
    assert len(store.results.runs()) == 1
    frame = store.results.runs(failed=True).set_index("run_id")
    row = frame.loc[RUN]
    assert (row["status"], row["recipe"], row["reason"]) == ("failed", "gptq@2", "signal SIGSEGV")
    assert frame.loc[OTHER, "status"] == "done"


@pytest.mark.faults
def test_old_events_and_folders_are_forgotten(ledger, stage, store):
    job_id = ledger.submit(RUN, {}).job_id
    ledger.step()
    stage.end(f"{job_id}-1", "signal SIGSEGV", -11)
    ledger.step()
    folder = store.home / "attempts" / f"{job_id}-1"
    folder.mkdir(parents=True)
    strange = folder.with_name("kept-1")  # no attempt of this program
    strange.mkdir()
    ledger.prune(days=1)
    assert folder.exists()
    ledger.prune(days=-1)
    assert not folder.exists()
    assert strange.exists()
    assert ledger.events(job_id) == []
    assert ledger.job(job_id).state is State.FAILED


@pytest.mark.faults
def test_folders_stay_of_the_jobs_that_ended_last_and_of_all_that_are_not_over(
    ledger, stage, store
):
    def folder(job_id):
        return store.home / "attempts" / f"{job_id}-1"

    ended = []
    for number in range(4):
        ended.append(ledger.submit(f"{number:016x}", {}).job_id)
        ledger.step()
        stage.end(f"{ended[-1]}-1", "signal SIGSEGV", -11)
        ledger.step()
    running = ledger.submit(f"{8:016x}", {}).job_id
    ledger.step()
    waiting = ledger.submit(f"{9:016x}", {}).job_id
    lost = "f" * 32  # of a database that was set aside, and its runner still there
    for job_id in (*ended, running, waiting, lost):
        folder(job_id).mkdir(parents=True)
    stage.living.add(f"{lost}-1")
    ledger.prune(folders=2)
    left = {path.name for path in (store.home / "attempts").iterdir()}
    assert left == {f"{job_id}-1" for job_id in (*ended[2:], running, waiting, lost)}
    assert ledger.events(ended[0]), "what it reported stays for its thirty days"
    stage.living.clear()
    ledger.prune(folders=2)
    assert not folder(lost).exists()
    assert folder(ended[3]).exists()


def test_an_unknown_job_is_named(ledger):
    for ask in (ledger.job, ledger.cancel, ledger.retry, ledger.log_tail):
        with pytest.raises(UnknownJobError, match="no job nonsense"):
            ask("nonsense")


def test_ids_sort_by_time(ledger):
    ids = []
    for number in range(3):
        ids.append(ledger.submit(f"{number:016x}", {}).job_id)
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert all(len(one) == 32 for one in ids)


def test_the_dispatcher_survives_a_step_that_raises(ledger, stage, monkeypatch, caplog):
    real, calls = ledger.step, []

    def step():
        calls.append(1)
        if len(calls) == 1:
            raise OSError("the disk is full")
        real()

    monkeypatch.setattr(ledger, "step", step)
    job_id = ledger.submit(RUN, {}).job_id
    with caplog.at_level(logging.ERROR), Dispatcher(ledger, period=0.01):
        deadline = time.monotonic() + 10
        while not stage.starts and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stage.starts == [f"{job_id}-1"]
    assert "the disk is full" in caplog.text
