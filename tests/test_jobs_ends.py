"""How the ledger ends a job: its result, its words, what is lost, and what cannot be trusted."""

from __future__ import annotations

import pytest

from backend.jobs.ledger import Ledger
from backend.jobs.states import State
from backend.store.documents import write_document
from tests.result_documents import document
from tests.staged import OTHER, RUN


def test_a_result_written_beside_the_attempt_is_moved_to_its_place(ledger, stage, store):
    job_id = ledger.submit(RUN, {}).job_id
    ledger.step()
    path = write_document(store.home / "attempts" / f"{job_id}-1", document(RUN))
    stage.say(f"{job_id}-1", "result", {"run_id": RUN, "path": str(path)})
    stage.end(f"{job_id}-1")
    ledger.step()
    assert ledger.job(job_id).state is State.DONE
    assert (store.results.folder / f"{RUN}.json").exists()


@pytest.mark.parametrize(
    ("reason", "rc", "state", "told"),
    [
        ("timeout", -9, State.TIMEOUT, "Stopped after 2 seconds, its limit."),
        ("signal SIGSEGV", -11, State.FAILED, "signal SIGSEGV"),
        ("memory limit 300 MB", -9, State.FAILED, "memory limit 300 MB"),
        ("ok", 0, State.FAILED, "It ended without a result."),
        ("exit code 1", 1, State.FAILED, "exit code 1"),
    ],
)
def test_an_end_is_told_in_words(ledger, stage, reason, rc, state, told):
    job_id = ledger.submit(RUN, {}).job_id
    ledger.step()
    stage.end(f"{job_id}-1", reason, rc)
    ledger.step()
    job = ledger.job(job_id)
    assert (job.state, job.reason) == (state, told)
    assert ledger.log_tail(job_id) == "the tail"


@pytest.mark.parametrize(("polite", "told"), [(True, "No."), (False, "ValueError: No.")])
def test_an_exception_is_told_by_its_message(ledger, stage, polite, told):
    job_id = ledger.submit(RUN, {}).job_id
    ledger.step()
    error = {"type": "ValueError", "message": "No.", "user_facing": polite}
    stage.say(f"{job_id}-1", "error", error)
    stage.end(f"{job_id}-1", "exit code 1", 1)
    ledger.step()
    assert ledger.job(job_id).reason == told


def test_a_lost_attempt_is_tried_again_up_to_its_limit(ledger, stage):
    job_id = ledger.submit(RUN, {}, max_attempts=2).job_id
    ledger.step()
    stage.living.clear()
    ledger.step()
    ledger.step()
    ledger.step()
    assert stage.starts == [f"{job_id}-1", f"{job_id}-2"]
    assert ledger.job(job_id).state is State.RUNNING
    stage.end(f"{job_id}-2", "fork server died", None)
    ledger.step()
    job = ledger.job(job_id)
    assert job.state is State.FAILED
    assert job.reason == "Given up after 2 attempts: fork server died."
    numbers = [(event.number, event.attempt, event.seq) for event in ledger.events(job_id)]
    assert numbers == [(1, 1, 0), (2, 2, 0), (3, 2, 1)]


def test_a_finished_result_of_a_lost_attempt_is_kept(ledger, stage, store):
    job_id = ledger.submit(RUN, {}).job_id
    ledger.step()
    path = write_document(store.results.folder, document(RUN))
    stage.say(f"{job_id}-1", "result", {"run_id": RUN, "path": str(path)})
    stage.living.clear()
    for _ in range(3):
        ledger.step()
    assert ledger.job(job_id).state is State.DONE
    assert store.results.known(RUN)


def test_an_attempt_on_record_that_never_began_is_started_again(ledger, store, stage, monkeypatch):
    job_id = ledger.submit(RUN, {}).job_id
    monkeypatch.setattr(stage, "start", lambda name, spec: None)
    ledger.step()
    monkeypatch.undo()
    later = Ledger(store, stage)  # as after a restart
    later.step()
    assert stage.starts == [f"{job_id}-1"]
    assert later.job(job_id).attempt == 1


def test_events_arrive_once_each_however_the_stream_is_cut(ledger, stage):
    job_id = ledger.submit(RUN, {}).job_id
    ledger.step()
    for number in range(40):
        stage.say(f"{job_id}-1", "log", {"text": "x" * number})
    stage.chunk = 150
    for _ in range(60):
        ledger.step()
    events = ledger.events(job_id)
    assert [event.number for event in events] == list(range(1, 42))
    assert [event.seq for event in events] == list(range(41))
    assert ledger.events(job_id, after_number=40) == events[40:]
    assert ledger.events(job_id, limit=3) == events[:3]


@pytest.mark.parametrize("kind", ["outside", "other run", "absent", "unsound"])
def test_a_result_that_cannot_be_trusted_fails_the_job(ledger, stage, store, kind):
    job_id = ledger.submit(RUN, {}).job_id
    ledger.step()
    path = store.results.folder / f"{RUN}.json"
    path.parent.mkdir(exist_ok=True)
    if kind == "outside":
        path = "/etc/hostname"
    elif kind == "other run":
        path = write_document(store.results.folder, document(OTHER))
    elif kind == "unsound":
        path.write_text("{}")
    stage.say(f"{job_id}-1", "result", {"run_id": RUN, "path": str(path)})
    stage.end(f"{job_id}-1")
    ledger.step()
    job = ledger.job(job_id)
    assert job.state is State.FAILED
    assert job.reason.startswith("The result")
    assert not store.results.known(RUN)


@pytest.mark.faults
def test_hostile_events_do_not_stop_the_queue(ledger, stage):
    job_id = ledger.submit(RUN, {}).job_id
    ledger.step()
    stage.say(f"{job_id}-1", "progress", {"stage": "\ud800", "done": "x", "total": None})
    stage.say(f"{job_id}-1", "error", {"type": [], "message": "\udfff\x00"})
    stage.end(f"{job_id}-1", "exit code 1", 1)
    ledger.step()
    assert ledger.job(job_id).state is State.FAILED


def test_an_unreadable_stream_fails_its_job_alone(ledger, stage):
    job_id = ledger.submit(RUN, {}).job_id
    ledger.step()
    stage.streams[f"{job_id}-1"] += b"garbage\n"
    ledger.step()
    assert "stream is damaged" in ledger.job(job_id).reason
