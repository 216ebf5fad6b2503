"""Every place that can be made to fail fails once; nothing is lost, made up or left behind."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from backend import faults
from backend.errors import ParetoscopeError
from backend.jobs.launchers import FETCH, LocalLauncher
from backend.rest import serving
from backend.service import Service
from tests import tiny_transformers as tiny
from tests.test_jobs_attempts import until
from tests.test_jobs_faults import processes_below

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.faults, pytest.mark.slow]

WRITING = ("compress.block", "artefact.write", "reference.write", "result.write", "worker.done")
CASES = [*((point, "") for point in faults.POINTS), *((point, "kill") for point in WRITING)]


@pytest.fixture(scope="module")
def armed(tmp_path_factory):
    return tmp_path_factory.mktemp("armed") / "fault"


RUN = (FETCH, "backend.attempt:run_compress", "tests.fault_attempt:judge")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny.save(tiny.build("llama"), folder)
    return str(folder)


@pytest.fixture(scope="module")
def service(tmp_path_factory, armed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(faults.ARMED, str(armed))
        patch.setattr("backend.jobs.ledger.START_PATIENCE", 0.5)
        launcher = functools.partial(LocalLauncher, run=RUN)
        with Service(tmp_path_factory.mktemp("home"), slots=1, launcher=launcher) as opened:
            assert opened._launcher.fork_server.ping(90)
            yield opened


def submit(service, recipe, model):
    """Submit until it is accepted: what was refused was never promised."""
    try:
        return service.submit(recipe, model, tier="smoke", speed="").job_id
    except (OSError, ParetoscopeError):
        return service.submit(recipe, model, tier="smoke", speed="").job_id


def results_on_disk(service):
    return {path.stem for path in (service.home / "results").glob("*.json")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case).strip())
def test_a_failure_anywhere_loses_nothing(service, armed, model, case):
    position = CASES.index(case)
    recipe = f"rtn@{5 + position / 4}"
    before = service.runs().set_index("run_id")["recipe"].to_dict()
    known = {job.job_id for job in service.jobs()}
    armed.write_text(" ".join(case).strip())
    job_id = submit(service, recipe, model)
    job = service.wait(job_id, 60)
    until(lambda: not processes_below(service.home))
    assert not armed.exists(), "the place was never passed"

    # No acknowledged row lost, no number made up.
    assert known <= {one.job_id for one in service.jobs()}
    assert job.state in ("done", "failed")
    assert before.items() <= service.runs().set_index("run_id")["recipe"].to_dict().items()
    if job.state == "failed":
        assert job.run_id not in set(service.runs()["run_id"])
        assert re.search(r"disk_full|SIGKILL|OSError", job.reason), job.reason
    # The program answers.
    with TestClient(FastAPI(**serving(service))) as client:
        assert client.get("/health").json()["status"] == "ok"

    if job.state == "failed":
        service.retry(job_id)
        assert service.wait(job_id, 60).state == "done", service.job(job_id).reason
    assert set(service.runs()["run_id"]) == results_on_disk(service)
    assert job.run_id in results_on_disk(service)
    # No process and no temporary file left.
    until(lambda: not processes_below(service.home))
    assert [
        str(path)
        for path in service.home.rglob("*")
        if re.search(r"\.(tmp|part|partial|incomplete)$", path.name)
    ] == []


def test_every_place_is_in_the_code_once():
    found = [
        name
        for path in (ROOT / "backend").rglob("*.py")
        for name in re.findall(r'fault_point\("([a-z.]+)"\)', path.read_text())
    ]
    assert sorted(found) == sorted(faults.POINTS)
