"""Answers about runs that many ask for: each made once, and kept until other runs are known.

Whoever asks waits without a thread of their own, so that a chart that takes half a second to
draw holds up nobody who asks for something else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic as clock
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from backend.rest_values import answer

LIMIT = 16 * 2**20  # bytes of all bodies that are kept
AT_ONCE = 2  # answers in the making
SHARE = 0.05  # of the time may be spent on making one answer again and again
CREDIT = 0.5  # seconds of making that may be spent at once
LONGEST = 20.0  # seconds by which an answer may lag behind


@dataclass(frozen=True)
class Kept:
    """One answer: what it rests on, when it was begun, and seconds of making left over."""

    body: bytes
    tag: str
    version: Hashable
    began: float
    credit: float

    def serves(self, version: Hashable) -> bool:
        """Whether it may still be given.

        While runs come one after another a costly answer lags behind them by some seconds;
        otherwise it would be made again for every run, and the runs themselves would wait.
        """
        return self.version == version or self.rest() > 0

    def rest(self) -> float:
        """Seconds until it may be made again."""
        return min(LONGEST - self.age(), -self.saved() / SHARE)

    def age(self) -> float:
        """Seconds since it was begun."""
        return clock() - self.began

    def saved(self) -> float:
        """Seconds of making that may be spent now; below 0 not yet."""
        return min(CREDIT, self.credit + SHARE * self.age())


class Answers:
    """Answers of one application.

    Args:
        version: what all of them rest on; an answer is made again when it has changed.
        limit: bytes of all bodies together; the one not asked for longest goes first.
    """

    def __init__(self, version: Callable[[], Hashable], limit: int = LIMIT) -> None:
        self._version = version
        self._limit = limit
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._making: dict[str, asyncio.Future[Kept]] = {}
        self._workers = ThreadPoolExecutor(AT_ONCE, "answers")

    async def give(
        self, request: Request, make: Callable[[], Any], wish: BaseModel | None = None
    ) -> Response:
        """What `make` returns as JSON with an ETag, or 304 where the asker has it.

        Address and wish name the answer: `make` must follow from them and the version alone. One
        that lags behind says by `Retry-After` when a newer can be had. What `make` raises is
        raised for everybody who waits, and not kept.
        """
        named = "" if wish is None else wish.model_dump_json()
        key = f"{request.url.path}?{request.url.query} {named}"
        version = self._version()
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        for _ in range(2):  # the one already in the making may be of before
            if found is None or not found.serves(version):
                found = await self._made(key, version, make)
        assert found is not None
        headers = {"ETag": found.tag, "Cache-Control": "no-cache"}
        if found.version != version and found.rest() > 0:
            headers["Retry-After"] = str(math.ceil(found.rest()))
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        return Response(found.body, media_type="application/json", headers=headers)

    async def _made(self, key: str, version: Hashable, make: Callable[[], Any]) -> Kept:
        making = self._making.get(key)
        if making is None:
            loop = asyncio.get_running_loop()
            last = self._kept.get(key)
            making = loop.run_in_executor(self._workers, _make, version, make, last)
            self._making[key] = making
            making.add_done_callback(lambda done: self._keep(key, done))
        # Who goes away must not end it for the others.
        return await asyncio.shield(making)

    def _keep(self, key: str, done: asyncio.Future[Kept]) -> None:
        del self._making[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[key] = done.result()
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and self._bytes() > self._limit:
            self._kept.popitem(last=False)

    def _bytes(self) -> int:
        return sum(len(one.body) for one in self._kept.values())


async def answer_now(
    request: Request,
    make: Callable[[], Any],
    wish: BaseModel | None = None,  # noqa: ARG001 - the same call as that of `give`
) -> Response:
    """The same made for this request alone, in a thread."""
    return answer(request, await run_in_threadpool(make))


def _make(version: Hashable, make: Callable[[], Any], last: Kept | None) -> Kept:
    saved, began = CREDIT if last is None else last.saved(), clock()
    content = make()
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    # The first making may load what later ones find loaded, and is no measure of them.
    spent = 0.0 if last is None else clock() - began
    return Kept(body, tag, version, began, saved - spent)
