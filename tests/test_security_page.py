"""A stranger with a browser: no file, no other host, no other's job, no prompt in a log."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.security
UP = (
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%5c..%5cetc%5cpasswd",
    "....//....//etc/passwd",
    "%252e%252e%252fetc%252fpasswd",
)
HOSTS = ("http://127.0.0.1:22", "http://169.254.169.254/latest/meta-data", "https://[::1]/")
PROBES = [
    *(f"/page/static/{path}" for path in UP),
    *(f"/gradio_api/file={path}" for path in (*UP, "/etc/passwd", "/proc/self/environ", "app.py")),
    *(f"/gradio_api/file={host}" for host in HOSTS),
    *(f"/gradio_api/proxy={host}" for host in HOSTS),
    *(f"/proxy={host}" for host in HOSTS),
    *("/static/../../app.py", "/gradio_api/upload"),
]


class Visitor:
    """Asks the running program by the very bytes of a path."""

    def __init__(self, port, home, log):
        self.port, self.home, self.log = port, home, log

    def ask(self, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            text = None if body is None else json.dumps(body[0])
            verb = "GET" if body is None else "POST"
            connection.request(verb, path, text, {"Content-Type": "application/json"})
            found = connection.getresponse()
            return found.status, found.read().decode(errors="replace"), dict(found.getheaders())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def visitor(tmp_path_factory):
    home = tmp_path_factory.mktemp("public")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (home / "said").open("wb") as log:
        app = subprocess.Popen(
            [sys.executable, "app.py", "--public", "--home", str(home), "--port", str(port)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        with app:
            assert app.stdout.readline().startswith(b"Paretoscope is at http")
            yield Visitor(port, home, home / "said")
            app.terminate()
            assert app.wait(30) == 0


def test_there_are_26_probes():
    assert len(set(PROBES)) == 26


@pytest.mark.parametrize("path", PROBES)
def test_a_probe_reaches_nothing(visitor, path):
    status, text, _ = visitor.ask(path)
    assert status >= 400, text[:200]
    assert "root:" not in text
    assert "PATH=" not in text


def test_links_that_are_no_runs_lead_nowhere_else(visitor):
    chance = random.Random(11)
    letters = "0123456789abcdefABCDEF%./\\:@?#<>\"' \u202e"
    before = json.loads(visitor.ask("/api/v1/jobs")[1])["jobs"]
    for _ in range(1000):
        text = "".join(chance.choice(letters) for _ in range(chance.randrange(1, 24)))
        status, _, headers = visitor.ask("/r/" + "".join(f"%{one:02x}" for one in text.encode()))
        assert status in (200, 307, 404), (text, status)
        target = headers.get("location", "../")
        assert target == "../" or target.startswith(f"http://127.0.0.1:{visitor.port}/"), text
    assert json.loads(visitor.ask("/api/v1/jobs")[1])["jobs"] == before, "a link started work"


ODD = [None, [], {}, "x" * 5000, 1e308, -1, "NaN", [[[[[]]]]], True, "'; DROP TABLE jobs; --"]


def test_no_odd_value_is_an_error_of_the_program(visitor):
    paths = json.loads(visitor.ask("/openapi.json")[1])["paths"]
    posts = [path for path, verbs in paths.items() if "post" in verbs]
    assert len(posts) >= 5
    for path in [*posts, "/page/compose", "/page/ahead"]:
        concrete = path.replace("{", "").replace("}", "")
        for value in ODD:
            for body in (value, {"recipe": value}, {"recipe": "rtn@4", "model": value}):
                status, text, _ = visitor.ask(concrete, [body])
                assert status < 500, (path, body, text[:200])
    assert json.loads(visitor.ask("/health")[1])["status"] == "ok"


def until_ended(visitor, path):
    """What `path` tells once its work is over."""
    for _ in range(400):
        told = json.loads(visitor.ask(path)[1])
        if told["state"] not in ("queued", "running", "writing"):
            return told
        time.sleep(0.2)
    raise AssertionError(f"{path} has not ended: {told}")


@pytest.mark.slow
def test_a_prompt_is_in_no_log(visitor):
    """A text is really written; only its own record, which the page shows, knows the prompt."""
    secret = "my neighbour keeps a lynx"
    wish = {"recipe": "rtn@4", "tier": "smoke", "speed": ""}
    run = json.loads(visitor.ask("/api/v1/jobs", [wish])[1])
    job = until_ended(visitor, f"/api/v1/jobs/{run['job_id']}")
    assert job["state"] == "done", job
    text = {"prompt": secret, "runs": [run["run_id"]], "new_tokens": 4}
    status, answer, _ = visitor.ask("/api/v1/writings", [text])
    assert status == 202, answer
    written = until_ended(visitor, f"/api/v1/writings/{json.loads(answer)['writing_id']}")
    assert written["state"] == "done", written
    # Refusals must not log what they refuse.
    assert visitor.ask("/api/v1/jobs", [{"recipe": secret}])[0] >= 400
    assert visitor.ask("/api/v1/writings", [text | {"runs": []}])[0] == 422
    visitor.ask("/page/answer?budget=" + secret.replace(" ", "%20"))

    knowing = {
        path.relative_to(visitor.home).parts[0]
        for path in visitor.home.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    }
    assert (visitor.home / "live" / "log.txt").exists()
    assert knowing == {"writings"}
