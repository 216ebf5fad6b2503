"""Kill the program, its runners, its workers and its fork server at random moments.

What is acknowledged must be there afterwards, and once; the moments are drawn from a seed.
"""

from __future__ import annotations

import collections
import itertools
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import httpx

from backend.jobs.launchers import LocalLauncher
from backend.jobs.ledger import Ledger
from backend.jobs.records import Event, Job
from backend.jobs.states import State
from backend.service import FIRST_RESULTS, SLOTS
from backend.store.store import Store
from tests.nightly.program import Program, wish

WAITING = 6  # jobs that wait or run at a time: enough that there is always one to hit
PAUSE = 0.25  # seconds between the steps of a job
EARLY = 0.2  # of the lives that end while the program is still starting
LIFE = 10.0  # seconds at most from its first answer to its end
CALM = 120.0  # seconds in which all must be over once nothing is killed any more


class Killing:
    """One program, what it promised, and what was done to it."""

    def __init__(self, home: Path, kills: int, seed: int, kinds: tuple[str, ...]):
        self.program = Program(home)
        self.chance = random.Random(seed)
        self.wanted = dict.fromkeys(kinds, kills)
        self.kills: collections.Counter[str] = collections.Counter()
        self.promised: dict[str, str] = {}  # run id to job id
        self.number = 0
        self.starts: list[float] = []

    def run(self) -> None:
        """Kill until every kind had its share, then let all jobs end."""
        (self.program.home / "pace").write_text(str(PAUSE))
        while self._left():
            self._one_life()
        self.program.start()
        assert self.program.until_up()
        deadline = time.monotonic() + CALM
        while active := self._look(submit=False):
            assert time.monotonic() < deadline, f"{active} jobs are not over"
            time.sleep(0.2)
        code = self.program.stop()
        said = (self.program.home / "said").read_text(errors="replace")
        assert code == 0, f"told to end, the program ended with code {code}: {said[-2000:]}"

    def _left(self) -> dict[str, int]:
        left = {kind: wanted - self.kills[kind] for kind, wanted in self.wanted.items()}
        return {kind: count for kind, count in left.items() if count > 0}

    def _one_life(self) -> None:
        """Start the program, use it, and kill it at a moment it cannot foresee."""
        began = time.monotonic()
        self.program.start()
        early = self.chance.random() < EARLY
        timer = self.program.kill_in(self.chance.uniform(0.2, 4) if early else 2 * CALM)
        try:
            if self.program.until_up():
                self.starts.append(time.monotonic() - began)
                if not early:
                    timer.cancel()
                    timer = self.program.kill_in(self.chance.uniform(0, LIFE))
                while self.program.alive() and self._left():
                    self._look(submit=True)
                    self._strike()
                    time.sleep(self.chance.uniform(0, 0.1))
        except httpx.TransportError:
            pass  # it died while it was asked: nothing was promised
        finally:
            timer.cancel()
            timer.join()
        if self.program.alive():
            self.program.kill()
        code = self.program.wait()
        assert code == -signal.SIGKILL, f"the program ended by itself, with code {code}"
        self.kills["web"] += 1

    def _look(self, *, submit: bool) -> int:
        """Repeat what failed, ask for more, and tell how many jobs are not over."""
        jobs = self.program.ask("/api/v1/jobs")[1]["jobs"]
        for job in jobs:
            if job["state"] == "failed":
                self.program.ask(f"/api/v1/jobs/{job['job_id']}/retry", {})
        active = sum(job["active"] or job["state"] == "failed" for job in jobs)
        if submit and active < WAITING:
            self._submit()
        return active

    def _submit(self) -> None:
        """Ask for the next job; whoever dies before it answers has promised nothing."""
        status, told = self.program.ask("/api/v1/jobs", wish(self.number))
        assert status == 202, told
        self.number += 1
        if told["outcome"] != "cached":
            self.promised[told["run_id"]] = told["job_id"]

    def _strike(self) -> None:
        """Kill one process that is not the program itself, now and then."""
        left = self._left()
        if self.chance.random() > 0.5 or not set(left) - {"web"}:
            return
        victims = {n: kind for n, kind in self.program.processes().items() if kind in left}
        if victims:
            number = self.chance.choice(sorted(victims))
            try:
                os.kill(number, signal.SIGKILL)
                self.kills[victims[number]] += 1
            except ProcessLookupError:
                pass


def kill(home: Path, kills: int, seed: int = 7, kinds: tuple[str, ...] = ()) -> dict[str, Any]:
    """Kill each kind of process so many times; figures, and `problems`, a sentence each."""
    began = time.monotonic()
    killing = Killing(home, kills, seed, kinds or ("web", "worker", "runner", "server"))
    with killing.program as program:
        killing.run()
        problems = left_behind(program)
    found, states = broken_promises(home, killing.promised)
    starts = sorted(killing.starts)
    return {
        "kills": dict(killing.kills),
        "promised": len(killing.promised),
        "states": states,
        "start_seconds": {
            "median": round(starts[len(starts) // 2], 2),
            "most": round(starts[-1], 2),
        },
        "seconds": round(time.monotonic() - began),
        "problems": problems + found,
    }


def left_behind(program: Program) -> list[str]:
    """Processes and half files that outlived the program."""
    deadline = time.monotonic() + 20
    while (alive := program.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    told = [f"process {number}, a {kind}, is left" for number, kind in alive.items()]
    return told + [f"{path} is left" for path in program.unfinished()]


def broken_promises(home: Path, promised: dict[str, str]) -> tuple[list[str], dict[str, int]]:
    """What does not hold in a home whose program ended, a sentence each; and how jobs ended."""
    first = {path.stem for path in (FIRST_RESULTS / "results").glob("*.json")}
    files = {path.stem for path in (home / "results").glob("*.json")}
    problems: list[str] = []
    with Store(home) as store:
        ledger = Ledger(store, LocalLauncher(home, preload=()))
        jobs = {job.job_id: job for job in ledger.jobs()}
        events = {job_id: ledger.events(job_id, limit=10**6) for job_id in jobs}
        indexed = set(store.results.runs()["run_id"])
    for run_id, job_id in promised.items():
        if job_id not in jobs or jobs[job_id].run_id != run_id:
            problems.append(f"job {job_id} of run {run_id} was promised and is lost")
    runs = collections.Counter(job.run_id for job in jobs.values())
    problems += [f"run {run_id} has {count} jobs" for run_id, count in runs.items() if count > 1]
    done = {job.run_id for job in jobs.values() if job.state is State.DONE}
    for name, there in (("file", files), ("row", indexed)):
        problems += [f"run {one} is done without a {name}" for one in done - there]
        problems += [f"a {name} of run {one} has no job" for one in there - done - first]
    problems += [f"job {job.job_id} is still {job.state}" for job in jobs.values() if job.active]
    spans: list[tuple[float, float]] = []
    for job_id, job in jobs.items():
        problems += _gaps(job, events[job_id])
        own = _spans(events[job_id])
        problems += [f"job {job_id}: {told}" for told in _overlaps(own, 1)]
        spans += own
    problems += _overlaps(spans, SLOTS)
    states = collections.Counter(str(job.state) for job in jobs.values())
    return problems, dict(states)


def _gaps(job: Job, events: list[Event]) -> list[str]:
    """Events of a job that are missing or there twice."""
    told = []
    if [one.number for one in events] != list(range(1, job.event_count + 1)):
        told.append(f"the events of job {job.job_id} are not 1 to {job.event_count}")
    for attempt, own in itertools.groupby(events, key=lambda one: one.attempt):
        numbers = [one.seq for one in own]
        if numbers != list(range(len(numbers))):
            told.append(f"attempt {attempt} of job {job.job_id} reports {numbers}")
    return told


def _spans(events: list[Event]) -> list[tuple[float, float]]:
    """First and last moment of each attempt at a job."""
    found = []
    for _, each in itertools.groupby(events, key=lambda one: one.attempt):
        own = list(each)
        found.append((own[0].time, own[-1].time))
    return found


def _overlaps(spans: list[tuple[float, float]], slots: int) -> list[str]:
    """Moments at which more attempts ran than there are slots."""
    ends: list[float] = []
    told = []
    for began, ended in sorted(spans):
        ends = [one for one in ends if one > began + 1e-3]
        ends.append(ended)
        if len(ends) > slots:
            told.append(f"{len(ends)} attempts ran at {began:.3f}, on {slots} slots")
    return told
