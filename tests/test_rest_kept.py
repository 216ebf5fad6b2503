"""Answers that many ask for are made once, stay true, and never fill the memory."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from starlette.requests import Request

from backend import rest_kept
from backend.rest_kept import Answers


def request(query="", tag=""):
    headers = [(b"if-none-match", tag.encode())] if tag else []
    about = {"type": "http", "method": "GET", "path": "/page/figure", "scheme": "http"}
    more = {"query_string": query.encode(), "headers": headers, "server": ("127.0.0.1", 80)}
    return Request(about | more)


class Slate:
    """What answers are made from, and how often they were."""

    def __init__(self, seconds=0.0):
        self.version = 0
        self.made = 0
        self.seconds = seconds
        self.answers = Answers(lambda: self.version)

    def make(self):
        self.made += 1
        time.sleep(self.seconds)
        return {"version": self.version}

    async def ask(self, **asked):
        return await self.answers.give(request(**asked), self.make)


@pytest.mark.security
def test_fifty_who_ask_at_once_are_answered_by_one_making():
    slate = Slate(0.05)

    async def all_of_them():
        return await asyncio.gather(*(slate.ask() for _ in range(50)))

    found = asyncio.run(all_of_them())
    assert slate.made == 1
    assert {one.body for one in found} == {b'{"version":0}'}
    again = asyncio.run(slate.ask(tag=found[0].headers["etag"]))
    assert (again.status_code, again.body, slate.made) == (304, b"", 1)


def test_an_answer_is_made_again_when_what_it_rests_on_changes():
    slate = Slate()
    for slate.version in (0, 1, 2):
        assert asyncio.run(slate.ask()).body == b'{"version":%d}' % slate.version
    assert asyncio.run(slate.ask(query="x=size")).body == b'{"version":2}'
    assert slate.made == 4


def test_a_costly_answer_lags_while_changes_come_quickly_and_no_longer(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(rest_kept, "clock", lambda: now[0])
    slate = Slate()

    def make():
        slate.made += 1
        now[0] += 0.4
        return slate.version

    def ask():
        found = asyncio.run(slate.answers.give(request(), make))
        lag.append(int(found.headers.get("retry-after", 0)))
        return int(found.body)

    lag = []
    assert ask() == 0
    # Half a second of making is at hand: spent on the first change, overdrawn by the second.
    for slate.version in (1, 2):
        assert ask() == slate.version
    slate.version = 3
    now[0] += 1.0
    assert ask() == 2, "of the 0.28 s overdrawn 0.07 s are saved"
    assert lag == [0, 0, 0, 5], "the other 0.21 s take 4.2 s"
    now[0] += 4.3
    assert ask() == 3
    # However costly, after twenty seconds it is made again.
    slate.version = 4
    monkeypatch.setattr(rest_kept, "SHARE", 1e-9)
    assert ask() == 3
    now[0] += rest_kept.LONGEST
    assert ask() == 4


def test_a_making_that_was_begun_before_a_change_is_not_the_answer_after_it():
    slate, begun, go = Slate(), threading.Event(), threading.Event()

    def make():
        found = slate.version
        begun.set()
        assert go.wait(5)
        return found

    async def asked():
        first = asyncio.create_task(slate.answers.give(request(), make))
        await asyncio.to_thread(begun.wait, 5)
        slate.version = 1
        second = asyncio.create_task(slate.answers.give(request(), make))
        await asyncio.sleep(0)
        go.set()
        return (await first).body, (await second).body

    assert asyncio.run(asked()) == (b"0", b"1")


def test_a_refusal_is_told_to_all_and_not_kept():
    slate = Slate()

    def refuse():
        slate.made += 1
        time.sleep(0.02)
        raise ValueError("no such axis")

    async def both():
        asked = (slate.answers.give(request(), refuse) for _ in range(2))
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [str(one) for one in asyncio.run(both())] == ["no such axis"] * 2
    assert slate.made == 1
    with pytest.raises(ValueError, match="no such axis"):
        asyncio.run(slate.answers.give(request(), refuse))
    assert asyncio.run(slate.ask()).status_code == 200


def test_bodies_take_no_more_memory_than_they_may():
    answers, made = Answers(lambda: 0, limit=250), []

    def ask(name):
        def make():
            made.append(name)
            return "x" * 98  # 100 bytes with its quotes

        asyncio.run(answers.give(request(query=name), make))

    for name in ("a", "b", "a", "c", "a", "b"):
        ask(name)
    assert made == ["a", "b", "c", "b"], "`b` was not asked for longest when `c` came"
