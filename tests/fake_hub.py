"""A local server that speaks as much of the Hub's interface as fetching a model takes.

Each repository under the owner `fake` behaves as its name says. It counts what it was asked.
"""

from __future__ import annotations

import collections
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34
CONFIG = json.dumps({"model_type": "llama"}).encode()
WEIGHTS = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
SLOWNESS = 3.0  # seconds


class Hub(ThreadingHTTPServer):
    """Serve until closed; `asked` counts requests by path."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked = collections.Counter()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Say nothing of clients that hang up, which is what is tested."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        self.server.asked[self.path.partition("?")[0]] += 1
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and "tree" in parts:
            files = [
                {"type": "file", "path": one, "size": len(text), "oid": "0" * 40}
                for one, text in FILES.items()
            ]
            self._send(200, json.dumps(files).encode())
        elif parts[:2] == ["api", "models"]:
            self._about(parts[3])
        elif "resolve" in parts:
            self._file(parts[1], parts[-1])
        else:
            self._send(404, b"{}")

    def _about(self, name):
        refusals = {
            "gated": (403, {"X-Error-Code": "GatedRepo"}),
            "missing": (404, {"X-Error-Code": "RepoNotFound"}),
            "limited": (429, {"Retry-After": "0"}),
            "broken": (500, {}),
        }
        if name in refusals:
            status, headers = refusals[name]
            self._send(status, b'{"error": "refused"}', headers)
        elif name == "garbage":
            self._send(200, b"<html>sign in to this network</html>")
        else:
            if name == "slow":
                time.sleep(SLOWNESS)
            revision = self.path.partition("/revision/")[2].partition("?")[0]
            if name == "unknown" and revision == "nowhere":
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                return
            large = {"huge": 5 * 10**12}.get(name)
            files = [{"rfilename": one, "size": large or len(text)} for one, text in FILES.items()]
            if name == "pickled":
                files = [{"rfilename": "pytorch_model.bin", "size": 100}]
            about = {"id": f"fake/{name}", "modelId": f"fake/{name}", "sha": COMMIT}
            about |= {"private": False, "disabled": False, "gated": False, "siblings": files}
            self._send(200, json.dumps(about).encode())

    def _file(self, name, file):
        text = FILES.get(file)
        if text is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{file}-{name}"', "X-Repo-Commit": COMMIT}
        if name == "lying" and file == "model.safetensors":
            # Metadata tell of ten bytes; the file itself goes on and on.
            self._send(200, text, headers, declared=10**12)
        elif name == "truncated" and file == "model.safetensors":
            self._send(200, text[:4], headers, declared=len(text))
        else:
            self._send(200, text, headers)

    def _send(self, status, body, headers=None, declared=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if declared is None else declared))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if declared is not None:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
