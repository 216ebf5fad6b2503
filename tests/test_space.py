"""A Space: the folder that is sent to the Hub starts there as it would in a new container."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from backend import service as service_module
from backend.errors import DataError
from backend.home import keep_results
from backend.jobs.states import State
from backend.service import Service
from data import space
from tests.result_documents import document
from tests.test_jobs_attempts import Bench

ROOT = Path(__file__).parents[1]
RUN = "00000000000000ab"
WATCH = """
import sys
SAID = {said!r}
def hook(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host)
    if not (host.startswith("127.") or host in ("::1", "localhost", "0.0.0.0", "None", "")):
        with open(SAID, "a") as file:
            file.write(event + " " + host + chr(10))
sys.addaudithook(hook)
"""
"""Python runs a module `sitecustomize` first, in this process and in all that it starts."""


class Space:
    """The running folder, asked as the Hub asks it."""

    def __init__(self, port, process, said):
        self.port, self.process, self.said = port, process, said

    def ask(self, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", "X-Visitor": "one"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("space") / "app"
    assert space.build(made) > 200
    return made


@pytest.fixture(scope="module")
def running(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("container")
    for name in ("watch", "elsewhere", "home", "bucket"):
        (place / name).mkdir()
    said = place / "said"
    (place / "watch" / "sitecustomize.py").write_text(WATCH.format(said=str(said)))
    (place / "bucket" / f"{RUN}.json").write_text(json.dumps(document(RUN)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place / "home"),
        "PYTHONPATH": str(place / "watch"),
        "SYSTEM": "spaces",
        "SPACE_ID": "someone/paretoscope",
        "SPACE_HOST": "someone-paretoscope.hf.space",
        "GRADIO_SERVER_PORT": str(port),
        "PARETOSCOPE_RESULTS": str(place / "bucket"),
    }
    with subprocess.Popen(
        [sys.executable, str(folder / "app.py")],
        cwd=place / "elsewhere",
        env=environment,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout.readline().startswith(b"Paretoscope is at http")
            yield Space(port, process, said)
        finally:
            process.kill()


def test_the_folder_holds_what_runs_and_no_tests(folder):
    assert (folder / "app.py").read_text() == (ROOT / "app.py").read_text()
    assert (folder / "data" / "model" / "model.safetensors").is_file()
    assert not (folder / "tests").exists()
    with pytest.raises(SystemExit, match="not empty"):
        space.build(folder)
    text = (folder / "README.md").read_text()
    linked = re.findall(r"\]\((?!https?:|#)([^)]+)\)", text)
    assert [one for one in linked if not (folder / one).exists()] == []


def test_the_head_of_the_readme_names_the_versions_that_are_installed(folder):
    _, head, _ = (folder / "README.md").read_text().split("---\n", 2)
    told = dict(line.split(": ", 1) for line in head.splitlines())
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert told["sdk"] == "gradio"
    assert told["sdk_version"] == pins["gradio"]
    assert (folder / told["app_file"]).is_file()
    assert told["python_version"].strip('"').split(".")[:2] in (["3", "11"], ["3", "12"])
    assert {"title", "emoji", "colorFrom", "colorTo", "license", "pinned"} <= set(told)
    assert len(told["short_description"]) <= 60


@pytest.mark.slow
def test_it_starts_as_in_a_new_container_and_is_public(running):
    status, text = running.ask("/")
    assert status == 200
    assert "Paretoscope" in text
    started = json.loads(running.ask("/page/start")[1])
    assert started["public"] is True
    assert started["link"] == "https://huggingface.co/spaces/someone/paretoscope"
    status, text = running.ask("/api/v1/jobs", {"recipe": "rtn@4", "model": "someone/model"})
    assert status == 403
    assert "only its embedded model" in text
    with socket.create_connection(("127.0.0.2", running.port), timeout=5):
        pass  # every address is listened on, as the Hub comes from outside


@pytest.mark.slow
def test_its_database_is_made_from_the_files_that_came_along_and_that_stayed(running):
    known = {one["run_id"] for one in json.loads(running.ask("/api/v1/runs")[1])}
    came = {path.stem for path in (ROOT / "data" / "results" / "results").glob("*.json")}
    assert came | {RUN} <= known
    points = json.loads(running.ask("/api/v1/frontier")[1])["points"]
    assert sum(one["on_frontier"] for one in points) > 3


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.security
def test_a_job_and_a_page_ask_no_other_host(running):
    """As far as the model is compressed: what then measures it is as cut off as what did that."""
    for path in ("/", "/page/figure", "/page/setup", "/page/methods", "/config"):
        assert running.ask(path)[0] == 200, path
    status, text = running.ask("/api/v1/jobs", {"recipe": "rtn@7", "tier": "smoke"})
    assert status == 202, text
    job = f"/api/v1/jobs/{json.loads(text)['job_id']}"
    end = time.monotonic() + 60
    while not any(
        one["kind"] == "progress" and one["data"]["stage"] == "save"
        for one in json.loads(running.ask(f"{job}/events")[1])
    ):
        told = json.loads(running.ask(job)[1])
        assert told["active"], told["reason"]
        assert time.monotonic() < end
        time.sleep(0.1)
    assert running.ask(f"{job}/cancel", {})[0] == 200
    assert not running.said.exists(), running.said.read_text()


@pytest.mark.slow
def test_it_ends_when_the_hub_tells_it_to(running):
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 0
    assert time.monotonic() - began < 10


@pytest.mark.security
def test_the_watch_sees_whoever_leaves_the_machine(tmp_path):
    said = tmp_path / "said"
    (tmp_path / "sitecustomize.py").write_text(WATCH.format(said=str(said)))
    program = (
        "import socket\n"
        "for host in ('127.0.0.1', '192.0.2.1'):\n"
        "    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); one.connect((host, 9))"
    )
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(tmp_path)}, check=False)
    assert said.read_text() == "socket.connect 192.0.2.1\n"


def test_results_lie_where_they_stay(tmp_path, monkeypatch):
    bucket, home = tmp_path / "bucket", tmp_path / "home"
    monkeypatch.setenv("PARETOSCOPE_RESULTS", str(bucket))
    monkeypatch.setattr(service_module, "FIRST_RESULTS", tmp_path / "none")
    for _ in range(2):  # the second start finds the link
        with Service(home, run_jobs=False):
            pass
    bench = Bench(home, ())  # a queue whose worker writes below its home
    try:
        job = bench.finish(bench.submit())
    finally:
        bench.close()
    assert job.state is State.DONE, job.reason
    assert [path.stem for path in bucket.glob("*.json")] == [job.run_id]
    with Service(tmp_path / "new", run_jobs=False) as service:
        assert service.run(job.run_id).recipe == document(job.run_id)["recipe"]


def test_a_home_with_results_of_its_own_is_not_left_behind(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "one.json").write_text("{}")
    monkeypatch.setenv("PARETOSCOPE_RESULTS", str(tmp_path / "bucket"))
    with pytest.raises(DataError, match="must give them there first"):
        keep_results(tmp_path)
    assert (tmp_path / "results" / "one.json").is_file()
