"""The long tests in small, and a flood, on the real program; `python -m tests.nightly` runs all."""

from __future__ import annotations

import collections
import concurrent.futures
import json

import httpx
import pytest

from backend.jobs.launchers import LocalLauncher
from backend.jobs.ledger import Ledger
from backend.limits import IN_PUBLIC
from backend.store.store import Store
from tests.nightly import killing
from tests.nightly.figures import share, slope
from tests.nightly.program import Program, recipe, wish
from tests.nightly.soaking import soak
from tests.result_documents import document
from ui.page import CALLS

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_thirty_jobs_leave_nothing_behind(tmp_path):
    # So few tell little of memory: what the program loads at its first jobs is more than they add.
    figures = soak(tmp_path, jobs=30, every=15, growth=60e6)
    assert figures["problems"] == []
    assert figures["states"] == {"done": 30}
    for name in ("handles", "threads"):
        least, most = figures[name]
        assert most - least <= 3, f"{name} between two looks: {least} to {most}"
    assert figures["files_beside_results"][-1] <= 30 * 4 + 8, "spec, stream, log and lock of each"


def flood(program, visitors):
    """Every visitor asks for a job of their own and for one of the same, at the same moment."""

    def ask(number):
        with httpx.Client(base_url=program.address, timeout=60, trust_env=False) as client:
            mine = {"X-Visitor": f"visitor-{number}"}
            answers = [client.post("/api/v1/jobs", json=wish(n), headers=mine) for n in (0, number)]
            body = {"data": [recipe(number), "default", "smoke"]}
            return answers, client.post("/gradio_api/call/compress", json=body)

    with concurrent.futures.ThreadPoolExecutor(visitors) as crowd:
        return list(crowd.map(ask, range(1, visitors + 1)))


@pytest.mark.security
def test_a_flood_of_fifty_is_refused_in_sentences_and_the_program_lives(tmp_path):
    (tmp_path / "pace").write_text("200")  # whoever got in stays in
    with Program(tmp_path, "--public") as program:
        program.start()
        assert program.until_up()
        answers = flood(program, 50)
        told = [one for own, _ in answers for one in own]
        assert {one.status_code for one in told} == {202, 403}
        refused = [one.json()["error"] for one in told if one.status_code == 403]
        assert all("jobs" in one and one.endswith(".") for one in refused), set(refused)
        jobs = program.ask("/api/v1/jobs")[1]["jobs"]
        assert len(jobs) == IN_PUBLIC.queue, "all places were taken, and no more"
        assert len({job["run_id"] for job in jobs}) == len(jobs), "the same job was joined"
        called = collections.Counter(one.status_code for _, one in answers)
        assert set(called) <= {200, 503}, called
        for _, one in answers:
            assert one.status_code == 200 or "full" in one.json()["detail"]
        assert program.ask("/health")[1]["status"] == "ok"
        assert program.client.get("/").status_code == 200
        for job in jobs:
            program.client.post(f"/api/v1/jobs/{job['job_id']}/cancel")
        assert program.stop() == 0
    assert CALLS < 50


def test_a_broken_promise_is_noticed(tmp_path):
    """What the long tests look for is found where it is."""
    with Store(tmp_path) as store:
        ledger = Ledger(store, LocalLauncher(tmp_path, preload=()))
        there = ledger.submit("a" * 16, {})
        store.results.add(document("e" * 16))
    problems, states = killing.broken_promises(tmp_path, {"d" * 16: "no such job"})
    assert states == {"queued": 1}
    assert f"job {there.job_id} is still queued" in problems
    assert f"job no such job of run {'d' * 16} was promised and is lost" in problems
    assert f"a file of run {'e' * 16} has no job" in problems
    assert len(problems) == 4, "and its row"
    assert killing._overlaps([(0, 2), (1, 3), (2.5, 4)], 2) == []
    (told,) = killing._overlaps([(0, 2), (1, 3), (1.5, 4)], 2)
    assert told == "3 attempts ran at 1.500, on 2 slots"


def test_figures_are_what_they_say():
    assert slope([(0, 5.0), (10, 7.0), (20, 9.0)]) == pytest.approx(0.2)
    assert slope([(3, 5.0)]) == 0
    hundred = [float(one) for one in range(1, 101)]
    assert (share(hundred, 0.5), share(hundred, 0.95), share(hundred, 1.0)) == (50, 95, 100)
    assert json.dumps(share([4.0], 0.95)) == "4.0"
