"""Send many small jobs through the program and see whether anything grows with their number."""

from __future__ import annotations

import collections
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.nightly.figures import slope
from tests.nightly.killing import broken_promises, left_behind
from tests.nightly.program import Program, Usage, wish

WAITING = 32  # jobs that wait or run at a time
WARM = 0.3  # the share of jobs after which nothing may grow any more
GROWTH = 1e6  # bytes of memory that 100 jobs may add
STALL = 300.0  # seconds without a finished job that are too long
VIEW = ("page/start", "page/figure", "page/figure?judged=true", "page/methods", "api/v1/runs")
KEPT = ("results", "paretoscope.duckdb", "paretoscope.duckdb.wal", "said")
"""What may grow: the results themselves, their index, and what the test's program printed."""


@dataclass(frozen=True)
class Sample:
    """The program when so many jobs were over."""

    jobs: int
    usage: Usage
    files: int
    database: int


def soak(home: Path, jobs: int, every: int = 25, growth: float = GROWTH) -> dict[str, Any]:
    """Send `jobs` jobs and look at the program after every few; figures, and `problems`.

    Args:
        home: an empty folder.
        jobs: how many in all.
        every: jobs between two looks, at each of which a visitor opens the page.
        growth: bytes of memory that 100 jobs may add once it is warm.
    """
    began = time.monotonic()
    with Program(home) as program:
        program.start()
        assert program.until_up()
        samples, promised = _send(program, jobs, every)
        assert program.stop() == 0
        problems = left_behind(program)
    found, states = broken_promises(home, promised)
    problems += found + [
        f"{count} jobs {state}" for state, count in states.items() if state != "done"
    ]
    warm = [one for one in samples if one.jobs >= WARM * jobs]
    memory = 100 * slope([(one.jobs, one.usage.memory) for one in warm])
    if memory > growth:
        problems.append(f"100 jobs add {memory / 1e6:.2f} MB of memory")
    for name in ("handles", "threads", "files"):
        values = [getattr(one, name, None) or getattr(one.usage, name) for one in warm]
        half = len(values) // 2
        # They rise and fall; what leaks never comes down to where it was.
        if min(values[half:]) > max(values[: half + 1]) + 2:
            problems.append(f"{name} grow: {values}")
    return {
        "jobs": len(promised),
        "states": states,
        "memory_mb": [round(one.usage.memory / 1e6, 1) for one in samples],
        "memory_mb_per_100_jobs": round(memory / 1e6, 3),
        "handles": _span(one.usage.handles for one in warm),
        "threads": _span(one.usage.threads for one in warm),
        "files_beside_results": [one.files for one in samples],
        "database_kb_per_100_jobs": round(
            100 * slope([(one.jobs, one.database) for one in warm]) / 1e3
        ),
        "seconds": round(time.monotonic() - began),
        "problems": problems,
    }


def _send(program: Program, jobs: int, every: int) -> tuple[list[Sample], dict[str, str]]:
    promised: dict[str, str] = {}
    samples: list[Sample] = []
    moved, before = time.monotonic(), -1
    while True:
        counts = collections.Counter(
            job["active"] for job in program.ask("/api/v1/jobs")[1]["jobs"]
        )
        over, active = counts[False], counts[True]
        if over != before:
            moved, before = time.monotonic(), over
        assert time.monotonic() - moved < STALL, f"no job ended in {STALL:.0f} s"
        if over >= every * len(samples) or over == jobs:
            samples.append(_look(program, over))
        if over == jobs:
            return samples, promised
        for _ in range(min(WAITING - active, jobs - len(promised))):
            status, told = program.ask("/api/v1/jobs", wish(len(promised)))
            assert status == 202, told
            promised[told["run_id"]] = told["job_id"]
        time.sleep(0.3)


def _look(program: Program, over: int) -> Sample:
    """Open the page as a visitor does, then measure."""
    for path in VIEW:
        assert program.ask(f"/{path}")[0] == 200
    files, database = 0, 0
    for path in program.home.rglob("*"):
        kept = path.relative_to(program.home).parts[0]
        if path.is_file() and kept not in KEPT:
            files += 1
        elif kept.startswith("paretoscope.duckdb"):
            database += path.stat().st_size
    return Sample(over, program.usage(), files, database)


def _span(values: Any) -> list[int]:
    """Least and most."""
    all_values = list(values)
    return [min(all_values), max(all_values)]
