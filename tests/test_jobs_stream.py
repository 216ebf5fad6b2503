"""What a worker may say, and that it arrives whole."""

from __future__ import annotations

import json
import os
import threading

import pytest

from backend.jobs.stream import LINE_LIMIT, Emitter, ProtocolError, finite, parse


@pytest.fixture
def pipe():
    source, events = os.pipe()
    yield source, events
    for descriptor in (source, events):
        os.close(descriptor)


def lines(source):
    return [json.loads(line) for line in os.read(source, 2**16).splitlines()]


def test_an_event_is_one_line_of_json(pipe):
    Emitter(pipe[1])("log", {"text": "two\nlines"})
    assert lines(pipe[0]) == [{"kind": "log", "data": {"text": "two\nlines"}}]


def test_numbers_that_are_not_finite_become_null(pipe):
    Emitter(pipe[1])("reading", {"value": float("nan"), "samples": [1.0, float("-inf")]})
    assert lines(pipe[0])[0]["data"] == {"value": None, "samples": [1.0, None]}
    assert finite({"a": (1, True, "x")}) == {"a": [1, True, "x"]}


def test_an_unknown_kind_and_an_endless_line_are_refused(pipe):
    with pytest.raises(ProtocolError, match="no kind of event"):
        Emitter(pipe[1])("gossip", {})
    with pytest.raises(ProtocolError, match="at most"):
        Emitter(pipe[1])("log", {"text": "x" * LINE_LIMIT})


def test_progress_is_thinned_but_its_ends_and_new_stages_pass(pipe):
    emit = Emitter(pipe[1])
    for stage in ("one", "two"):
        for done in range(1, 101):
            emit("progress", {"stage": stage, "done": done, "total": 100})
    seen = [(event["data"]["stage"], event["data"]["done"]) for event in lines(pipe[0])]
    assert {("one", 1), ("one", 100), ("two", 1), ("two", 100)} <= set(seen)
    assert len(seen) < 50


def test_lines_of_several_threads_do_not_mix(pipe):
    emit = Emitter(pipe[1])

    def speak(name):
        for _ in range(20):
            emit("log", {"text": name * 50})

    threads = [threading.Thread(target=speak, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = [event["data"]["text"] for event in lines(pipe[0])]
    assert sorted(texts) == sorted(name * 50 for name in "abcd" for _ in range(20))


def test_half_a_surrogate_pair_is_mended_and_a_whole_one_kept():
    event = parse(rb'{"kind": "log", "data": {"bad": "a\uD800b", "good": "\ud83d\ude00"}}')
    assert event["data"] == {"bad": "a?b", "good": "\U0001f600"}


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"{", b"[]", b"[" * 10**5, b"\xff"),
        *(b'{"kind": "log"}', b'{"kind": 1, "data": {}}', b'{"kind": "log", "data": []}'),
        b'{"kind": "log", "data": {"x": NaN}}',
    ],
)
def test_a_line_that_is_no_event_is_refused(line):
    with pytest.raises(ProtocolError):
        parse(line)
