"""The desk: texts are written in turn, watched, stopped, kept, and survive their writer's end."""

from __future__ import annotations

import time

import pytest

from backend.errors import UnknownNameError
from backend.live import desk as desks
from backend.live.desk import Desk, DeskFullError
from backend.live.records import Pane, Wish

FAKE = "tests.fake_scribe:serve"


@pytest.fixture
def home(tmp_path):
    return tmp_path


@pytest.fixture
def desk(home):
    opened = Desk(home, None, FAKE)
    yield opened
    opened.close()


def wish(prompt, writing_id=None):
    name = writing_id or f"{abs(hash(prompt)):016x}"[:16]
    return Wish(name, {"name": "default"}, (Pane("", "dense", None),), prompt, 8, 0.0, 0)


def over(writing, seconds=20.0):
    end = time.monotonic() + seconds
    while not writing.ended:
        assert time.monotonic() < end, writing.state
        time.sleep(0.01)
    return writing


def texts(writing):
    return [event["text"] for event in writing.events]


def test_texts_are_written_one_after_another_by_one_process(desk):
    first, second = desk.ask(wish("one two")), desk.ask(wish("three"))
    assert texts(over(first)) == ["one", "two"]
    assert texts(over(second)) == ["three"]
    assert first.state == second.state == "done"


def test_what_was_written_is_told_from_any_event_on(desk):
    writing = over(desk.ask(wish("a b c")))
    told = writing.to_json(after=2)
    assert told["count"] == 3
    assert [event["text"] for event in told["events"]] == ["c"]


def test_the_same_wish_is_answered_by_what_was_written(desk):
    first = over(desk.ask(wish("a b")))
    assert desk.ask(wish("a b")) is first


def test_a_text_outlives_the_desk(desk, home):
    over(desk.ask(wish("a b", "00aa"), owner="secret"))
    desk.close()
    found = Desk(home, None, FAKE).look("00aa")
    assert texts(found) == ["a", "b"]
    assert "secret" not in (home / "writings" / "00aa.json").read_text()


def test_a_text_is_stopped_where_it_is_and_written_anew_on_request(desk):
    writing = desk.ask(wish("now slowly then"))
    while not writing.events:
        time.sleep(0.01)
    desk.stop(writing.about["writing_id"])
    assert texts(over(writing)) == ["now"]
    assert writing.state == "stopped"
    other = over(desk.ask(wish("next")))
    assert texts(other) == ["next"]
    assert desk.ask(wish("now slowly then")) is not writing


def test_a_new_wish_of_a_reader_ends_the_readers_last(desk):
    last = desk.ask(wish("slowly"), owner="reader")
    other = desk.ask(wish("wait"), owner="somebody")
    assert texts(over(desk.ask(wish("new"), owner="reader"))) == ["new"]
    assert last.state == "stopped"
    assert other.state == "done"


def test_a_refusal_is_told(desk):
    writing = over(desk.ask(wish("refuse")))
    assert (writing.state, writing.reason) == ("failed", "This cannot be written.")


def test_a_writer_that_dies_is_told_and_replaced(desk):
    writing = over(desk.ask(wish("die")))
    assert writing.state == "failed"
    assert "ended" in writing.reason
    assert over(desk.ask(wish("again"))).state == "done"


def test_no_more_wait_than_can_soon_be_written(desk):
    slow = [desk.ask(wish(f"slowly {n}")) for n in range(desks.WAITING)]
    with pytest.raises(DeskFullError, match=str(desks.WAITING)):
        desk.ask(wish("more"))
    for one in slow:
        desk.stop(one.about["writing_id"])


@pytest.mark.parametrize("name", ["ffff", "../app", "..", ""])
def test_an_unknown_text_is_a_sentence(desk, name):
    with pytest.raises(UnknownNameError, match="not here"):
        desk.look(name)
