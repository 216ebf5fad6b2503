"""Speaks the part of Ray's REST interface that the launcher uses, and runs each job for real.

One machine, no queue: a package is unpacked into a folder, an entrypoint is a process in it.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Cluster:
    """A server on a free port; `jobs` are the processes by name."""

    def __init__(self, folder, token=""):
        self.folder, self.token = folder, token
        self.jobs, self.stopped, self.sent = {}, set(), []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"cluster": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def submit(self, job):
        name = job["submission_id"]
        with self.lock:
            if name in self.jobs:
                return 500, f"Job with submission_id {name} already exists."
            package = self.folder / job["runtime_env"]["working_dir"].removeprefix("gcs://")
            command = shlex.split(job["entrypoint"])
            assert command[0] == "python"
            with (self.folder / f"{name}.log").open("wb") as log:
                self.jobs[name] = subprocess.Popen(
                    [sys.executable, *command[1:]],
                    cwd=package.with_suffix(""),
                    env=os.environ | {"PARETOSCOPE_HOME": str(self.folder / "node")},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        return 200, {"submission_id": name}

    def state(self, name):
        code = self.jobs[name].poll()
        if code is None:
            return "RUNNING"
        return "STOPPED" if name in self.stopped else "SUCCEEDED" if code == 0 else "FAILED"

    def close(self):
        for job in self.jobs.values():
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_GET(self):
        if not self._admitted():
            return
        parts = self.path.strip("/").split("/")
        if self.path == "/api/version":
            self._answer(200, {"ray_version": "stand-in"})
        elif parts[1] == "packages":
            self._answer(200 if (self.cluster.folder / parts[-1]).exists() else 404, {})
        elif parts[2] not in self.cluster.jobs:
            self._answer(404, {"error": "unknown"})
        elif parts[-1] == "logs":
            log = (self.cluster.folder / f"{parts[2]}.log").read_text()
            self._answer(200, {"logs": "a line of Ray's own\n" + log})
        else:
            self._answer(200, {"status": self.cluster.state(parts[2])})

    def do_PUT(self):
        if not self._admitted():
            return
        content, name = self._body(), self.path.rpartition("/")[2]
        self.cluster.sent.append(name)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall((self.cluster.folder / name).with_suffix(""))
        (self.cluster.folder / name).write_bytes(content)
        self._answer(200, {})

    def do_POST(self):
        if not self._admitted():
            return
        if self.path == "/api/jobs/":
            self._answer(*self.cluster.submit(json.loads(self._body())))
            return
        name = self.path.split("/")[3]
        job = self.cluster.jobs.get(name)
        if job is None:
            self._answer(404, {})
            return
        self.cluster.stopped.add(name)
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGTERM)
        self._answer(200, {"stopped": True})

    def _admitted(self):
        token = self.cluster.token
        if token and self.headers.get("Authorization") != f"Bearer {token}":
            self._answer(401, {})
            return False
        return True

    def _body(self):
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, code, content):
        text = content if isinstance(content, str) else json.dumps(content)
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass
