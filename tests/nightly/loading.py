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
from tests.nightly.killing import broken_promises, first_results, left_behind
from tests.nightly.program import ROOT, Program, Usage, recipe

POLL = 1.0  # seconds between two questions for the jobs while any is active
PACE = 6.0  # seconds between two looks at the charts while runs come
ARRIVAL = 30.0  # seconds in which all visitors arrive
SEARCH = 10.0  # seconds between two questions for the search
WELL = 1.0  # seconds that 95 % of requests may take
GROWTH = 1e6  # bytes of memory that 100 jobs may add
STALL = 300.0  # seconds without a finished job that are too long
STATIC = sorted(path.name for path in (ROOT / "ui" / "static").glob("*.js"))
OPENED = ("page/start", "page/setup", "page/figure", "page/figure?judged=true", "api/v1/search")
CHARTS = ("page/start", "page/figure", "page/figure?judged=true")
PLAN = {"model": "default", "recipes": ["gptq"], "budgets": ["3 bits", "4 bits", "8 bits"]}


class Crowd:
    """Visitors of one address, and what they saw."""

    def __init__(self, address: str, seed: int):
        self.address = address
        self.chance = random.Random(seed)
        self.took: dict[str, list[float]] = collections.defaultdict(list)
        self.errors: collections.Counter[str] = collections.Counter()
        self.over = asyncio.Event()

    async def visit(self, client: httpx.AsyncClient) -> None:
        """Come at some moment of the arrival, open the page, and stay until all is over."""
        await asyncio.sleep(self.chance.uniform(0, ARRIVAL))
        tags: dict[str, str] = {}
        for path in ("", *(f"page/static/{name}" for name in STATIC), *OPENED):
            await self._ask(client, path, tags)
        await self._ask(client, "page/ahead", tags, PLAN)
        known: dict[str, bool] = {}
        revision, looked, searched = None, time.monotonic(), time.monotonic()
        stale = False
        while not self.over.is_set():
            since = "" if revision is None else f"&since={revision}"
            found = await self._ask(client, f"api/v1/jobs?limit=32{since}", tags)
            if found is not None:
                listed = json.loads(found)
                revision = listed["revision"]
                before = {one for one, active in known.items() if active}
                known |= {job["job_id"]: job["active"] for job in listed["jobs"]}
                stale = stale or any(not known[one] for one in before)
            if stale and time.monotonic() - looked > PACE:
                stale, looked = False, time.monotonic()
                for path in CHARTS:
                    await self._ask(client, path, tags)
                await self._ask(client, "page/ahead", tags, PLAN)
            if time.monotonic() - searched > SEARCH:
                searched = time.monotonic()
                await self._ask(client, "api/v1/search", tags)
            await asyncio.sleep(POLL)

    async def _ask(
        self, client: httpx.AsyncClient, path: str, tags: dict[str, str], body: Any = None
    ) -> bytes | None:
        """The body of an answer; None where it has not changed, or was an error."""
        headers = {"If-None-Match": tags[path]} if path in tags else {}
        began = time.monotonic()
        try:
            if body is None:
                answer = await client.get(f"/{path}", headers=headers)
            else:
                answer = await client.post(f"/{path}", json=body)
        except httpx.TransportError as error:
            self.errors[f"{_kind(path)}: {type(error).__name__}"] += 1
            return None
        self.took[_kind(path)].append(time.monotonic() - began)
        if answer.status_code not in (200, 304):
            self.errors[f"{_kind(path)}: {answer.status_code}"] += 1
            return None
        if "since" not in path and "ETag" in answer.headers:
            tags[path] = answer.headers["ETag"]
        return answer.content if answer.status_code == 200 else None


def _kind(path: str) -> str:
    """What a request is counted as."""
    if path.startswith("page/static"):
        return "page/static"
    return re.sub(r"[?&](since|limit)=\d+", "", path) or "/"


def load(home: Path, jobs: int, visitors: int, seed: int = 7) -> dict[str, Any]:
    """Queue all jobs, open the doors, and stay until the last job is over; figures, `problems`."""
    began = time.monotonic()
    with Program(home) as program:
        first = first_results(home, program)
        shipped = len(first)
        promised = _queue(home, jobs)
        program.start()
        assert program.until_up()
        crowd, samples = asyncio.run(_crowd(program, shipped + jobs, visitors, seed))
        assert program.stop() == 0
        problems = left_behind(program)
    found, states = broken_promises(home, promised, first)
    problems += found
    problems += [f"{count} jobs {state}" for state, count in states.items() if state != "done"]
    problems += [f"{count} times {told}" for told, count in crowd.errors.items()]
    took = [one for each in crowd.took.values() for one in each]
    if share(took, 0.95) > WELL:
        problems.append(f"one request in twenty took more than {share(took, 0.95):.2f} s")
    warm = [(done, usage.memory) for done, usage in samples if done >= shipped + 0.3 * jobs]
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
    program: Program, results: int, visitors: int, seed: int
) -> tuple[Crowd, list[tuple[int, Usage]]]:
    crowd = Crowd(program.address, seed)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    samples: list[tuple[int, Usage]] = []
    async with httpx.AsyncClient(
        base_url=program.address, timeout=30, limits=limits, trust_env=False
    ) as client:
        visits = [asyncio.create_task(crowd.visit(client)) for _ in range(visitors)]
        moved, before, done = time.monotonic(), -1, 0
        while done < results:
            await asyncio.sleep(3)
            done = len(list((program.home / "results").glob("*.json")))
            if done != before:
                moved, before = time.monotonic(), done
            assert time.monotonic() - moved < STALL, f"no job ended in {STALL:.0f} s"
            samples.append((done, program.usage()))
        await asyncio.sleep(5)
        crowd.over.set()
        await asyncio.gather(*visits)
    return crowd, samples


def _spread(values: list[float]) -> list[float]:
    """Median, 95 of 100, and the longest, in seconds."""
    return [round(value, 3) for value in (share(values, 0.5), share(values, 0.95), max(values))]
