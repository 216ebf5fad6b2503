"""Two hundred visitors with the page open while a thousand small jobs are queued and run.

A visitor asks as the page does: everything once, then the jobs each second, and the charts anew
when runs are over, at most every six seconds. Latencies are those of the whole request, body read.
"""

from __future__ import annotations

import asyncio
import collections
import json
import random
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from backend.jobs.launchers import LocalLauncher
from backend.jobs.ledger import Ledger
from backend.plan import plan
from backend.recipes import Recipe
from backend.sources import ModelSource
from backend.store.store import Store
from tests.nightly.figures import share, slope
from tests.nightly.killing import broken_promises, left_behind
from tests.nightly.program import ROOT, Program, Usage, recipe

POLL = 1.0  # seconds between two questions for the jobs while any is active
PACE = 6.0  # seconds between two looks at the charts while runs come
ARRIVAL = 30.0  # seconds in which all visitors arrive
SEARCH = 10.0  # seconds between two questions for the search
WELL = 1.0  # seconds that 95 % of requests may take
GROWTH = 1e6  # bytes of memory that 100 jobs may add
AFTERWARDS = 10.0  # seconds that visitors stay after the last result
STALL = 300.0  # seconds without a finished job that are too long
STATIC = sorted(path.name for path in (ROOT / "ui" / "static").glob("*.js"))
OPENED = ("page/start", "page/setup", "page/figure", "page/figure?judged=true", "api/v1/search")
CHARTS = ("page/start", "page/figure", "page/figure?judged=true")
PLAN = {"model": "default", "recipes": ["gptq"], "budgets": ["3 bits", "4 bits", "8 bits"]}


@dataclass
class Crowd:
    """What all visitors saw together, and whether it is over."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    took: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))


class Visitor:
    """Somebody with the page open."""

    def __init__(self, crowd: Crowd, client: httpx.AsyncClient):
        self._crowd = crowd
        self._client = client
        self._tags: dict[str, str] = {}
        self._revision: int | None = None
        self._active: set[str] = set()
        self._next_look = float("inf")  # at the charts

    async def stay(self, arrival: float) -> None:
        """Come after some seconds, open the page, and keep it open until all is over."""
        await asyncio.sleep(arrival)
        for path in ("", *(f"page/static/{name}" for name in STATIC), *OPENED):
            await self._ask(path)
        await self._ask("page/ahead", PLAN)
        looked = searched = time.monotonic()
        while not self._crowd.over.is_set():
            if await self._somebody_ended():
                self._next_look = min(self._next_look, looked + PACE)
            now = time.monotonic()
            if now > self._next_look:
                self._next_look, looked = float("inf"), now
                for path in CHARTS:
                    await self._ask(path)
                await self._ask("page/ahead", PLAN)
            if now > searched + SEARCH:
                searched = now
                await self._ask("api/v1/search")
            await asyncio.sleep(POLL)

    async def _somebody_ended(self) -> bool:
        """Ask for the jobs; whether any that was active is over."""
        since = "" if self._revision is None else f"&since={self._revision}"
        found = await self._ask(f"api/v1/jobs?limit=32{since}")
        if not found:
            return False
        listed = json.loads(found)
        self._revision = listed["revision"]
        over = {job["job_id"] for job in listed["jobs"] if not job["active"]}
        ended = self._active & over
        self._active |= {job["job_id"] for job in listed["jobs"] if job["active"]}
        self._active -= over
        return bool(ended)

    async def _ask(self, path: str, body: Any = None) -> bytes:
        """The body of an answer; empty where it has not changed, or was an error."""
        kind, began = _kind(path), time.monotonic()
        try:
            try:
                answer = await self._sent(path, body)
            except (httpx.RemoteProtocolError, httpx.ReadError):
                # The server has just closed a connection that stood idle; browsers open another.
                answer = await self._sent(path, body)
        except httpx.TransportError as error:
            self._crowd.errors[f"{kind}: {type(error).__name__}"] += 1
            return b""
        self._crowd.took[kind].append(time.monotonic() - began)
        if answer.status_code not in (200, 304):
            self._crowd.errors[f"{kind}: {answer.status_code}"] += 1
            return b""
        if kind != "api/v1/jobs" and "ETag" in answer.headers:
            self._tags[path] = answer.headers["ETag"]
        if behind := int(answer.headers.get("Retry-After", 0)):
            self._next_look = min(self._next_look, time.monotonic() + behind)
        return answer.content

    async def _sent(self, path: str, body: Any) -> httpx.Response:
        headers = {"If-None-Match": self._tags[path]} if path in self._tags else {}
        if body is None:
            return await self._client.get(f"/{path}", headers=headers)
        return await self._client.post(f"/{path}", json=body)


def _kind(path: str) -> str:
    """What a request is counted as."""
    if path.startswith("page/static"):
        return "page/static"
    return re.sub(r"[?&](since|limit)=\d+", "", path) or "/"


def load(home: Path, jobs: int, visitors: int, seed: int = 7) -> dict[str, Any]:
    """Queue all jobs, open the doors, and stay until the last job is over; figures, `problems`."""
    began = time.monotonic()
    with Program(home) as program:
        promised = _queue(home, jobs)
        program.start()
        assert program.until_up()
        crowd, samples = asyncio.run(_crowd(program, set(promised), visitors, seed))
        assert program.stop() == 0
        problems = left_behind(program)
    found, states = broken_promises(home, promised)
    problems += found
    problems += [f"{count} jobs {state}" for state, count in states.items() if state != "done"]
    problems += [f"{count} times {told}" for told, count in crowd.errors.items()]
    took = [one for each in crowd.took.values() for one in each]
    if share(took, 0.95) > WELL:
        problems.append(f"one request in twenty took more than {share(took, 0.95):.2f} s")
    warm = [(done, usage.memory) for done, usage in samples if done >= 0.3 * jobs]
    memory = 100 * slope(warm)
    if memory > GROWTH:
        problems.append(f"100 jobs add {memory / 1e6:.2f} MB of memory")
    return {
        "visitors": visitors,
        "jobs": states,
        "requests": len(took),
        "seconds_each": _spread(took),
        "by_path": {name: [len(each), *_spread(each)] for name, each in sorted(crowd.took.items())},
        "memory_mb": [
            round(usage.memory / 1e6) for _, usage in samples[:: max(1, len(samples) // 12)]
        ],
        "memory_mb_per_100_jobs": round(memory / 1e6, 3),
        "handles": max(usage.handles for _, usage in samples),
        "threads": max(usage.threads for _, usage in samples),
        # The visitors wait for their own turns as well, on cores that both share.
        "core_seconds": {
            "program": round(samples[-1][1].seconds - samples[0][1].seconds, 1),
            "visitors": round(time.process_time(), 1),
        },
        "seconds": round(time.monotonic() - began),
        "problems": problems,
    }


def _queue(home: Path, jobs: int) -> dict[str, str]:
    """Queue jobs as the service does, past the limit of the front door, while nobody is there."""
    promised = {}
    with Store(home) as store:
        launcher = LocalLauncher(home, preload=())
        ledger = Ledger(store, launcher, queue_limit=jobs, owner_queue_limit=jobs)
        for number in range(jobs):
            wanted = Recipe.parse(recipe(number))
            job = plan(wanted, ModelSource.parse("default"), tier="smoke", speed="")
            done = ledger.submit(
                *(job.run_id, job.spec), model=job.model, recipe=wanted.text(), family=wanted.family
            )
            promised[done.run_id] = done.job_id
    return promised


async def _crowd(
    program: Program, runs: set[str], visitors: int, seed: int
) -> tuple[Crowd, list[tuple[int, Usage]]]:
    """Have all visitors there until all runs are done, and look at the program meanwhile."""
    crowd, chance = Crowd(), random.Random(seed)
    samples: list[tuple[int, Usage]] = []
    stays = [
        asyncio.create_task(_stay(crowd, program.address, chance.uniform(0, ARRIVAL)))
        for _ in range(visitors)
    ]
    moved, before, done = time.monotonic(), -1, 0
    while done < len(runs) or time.monotonic() < moved + AFTERWARDS:
        await asyncio.sleep(3)
        done = sum((program.home / "results" / f"{run}.json").exists() for run in runs)
        if done != before:
            moved, before = time.monotonic(), done
        assert time.monotonic() - moved < STALL, f"no job ended in {STALL:.0f} s"
        samples.append((done, program.usage()))
    crowd.over.set()
    await asyncio.gather(*stays)
    return crowd, samples


async def _stay(crowd: Crowd, address: str, arrival: float) -> None:
    """One visitor with connections of their own: a common pool looks through all at every turn."""
    async with httpx.AsyncClient(
        base_url=address, timeout=30, trust_env=False, verify=False
    ) as client:
        await Visitor(crowd, client).stay(arrival)


def _spread(values: list[float]) -> list[float]:
    """Median, 95 of 100, and the longest, in seconds."""
    return [round(value, 3) for value in (share(values, 0.5), share(values, 0.95), max(values))]
