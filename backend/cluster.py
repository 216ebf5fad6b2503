"""Attempts as jobs of a Ray cluster, by its REST interface; Ray itself is never imported.

The code travels with the first attempt, as a package that the cluster keeps by content; machines
need Ray and what `requirements.txt` names. Ray queues attempts by the cores and GPUs they ask for.
"""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from backend.jobs.errors import JobError
from backend.jobs.launchers import ROOT, RUN
from backend.remote import sent

SENT = ("backend", "data", "kernels")
LEFT_OUT = ("__pycache__", "results")
OVER = ("SUCCEEDED", "FAILED", "STOPPED")
JOBS = 64  # handed over at a time: the cluster has a queue of its own
PATIENCE = 30.0  # seconds for an answer of the cluster
FRESH = 0.5  # seconds for which an answer about an attempt is used again
_EVENT = b'{"seq": '


class RayLauncher:
    """Attempts on the machines of a cluster.

    Args:
        address: of its dashboard, such as http://head:8265.
        run: what a worker calls, as at home.
        cores: that an attempt asks for.
        gpus: that an attempt asks for.

    Raises:
        JobError: no cluster answers there.
    """

    fork_server = None

    def __init__(
        self, address: str, run: Sequence[str] = RUN, *, cores: float = 1.0, gpus: float = 0.0
    ) -> None:
        self._address, self._run = address, tuple(run)
        self._asks = {"entrypoint_num_cpus": cores, "entrypoint_num_gpus": gpus}
        token = os.environ.get("RAY_AUTH_TOKEN", "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=address, headers=headers, timeout=PATIENCE)
        self._package = ""
        self._known: dict[str, tuple[float, str]] = {}
        self._ask("GET", "/api/version")

    def asked(self, run_id: str) -> None:
        """Nothing: a cluster works for whoever asks."""

    def start(self, name: str, spec: Mapping[str, Any]) -> None:
        """Hand the attempt to the cluster; a name that it has is left as it is.

        Raises:
            JobError: the cluster refuses.
        """
        self._known.pop(name, None)
        command = shlex.join(["python", "-m", "backend.remote", *sent(name, dict(spec), self._run)])
        job = {
            "submission_id": name,
            "entrypoint": command,
            "runtime_env": {"working_dir": self._sent_package()},
            **self._asks,
        }
        answer = self._ask("POST", "/api/jobs/", json=job, allow=(500,))
        if answer.status_code == 500 and "already" not in answer.text:
            raise JobError(f"The cluster at {self._address} refuses: {answer.text[-500:]}")

    def alive(self, name: str) -> bool:
        """Whether it waits or runs there."""
        return self._state(name) not in ("", *OVER)

    def started(self, name: str) -> bool:
        """Whether the cluster knows it."""
        return bool(self._state(name))

    def read(self, name: str, offset: int) -> bytes:
        """Whole lines of its stream from the offset."""
        answer = self._ask("GET", f"/api/jobs/{quote(name)}/logs", allow=(404, 500))
        if answer.status_code != 200:
            return b""  # the machine that kept them is gone
        lines = answer.json().get("logs", "").encode().split(b"\n")[:-1]
        return b"".join(line + b"\n" for line in lines if line.startswith(_EVENT))[offset:]

    def kill(self, name: str) -> None:
        """Have the cluster end it."""
        self._ask("POST", f"/api/jobs/{quote(name)}/stop", allow=(404, 500))

    def warm_up(self) -> None:
        """Send the code ahead of the first attempt."""
        self._sent_package()

    def close(self) -> None:
        """Let go; what runs there carries on and is found again by its name."""
        self._client.close()

    def _state(self, name: str) -> str:
        taken, state = self._known.get(name, (0.0, ""))
        if time.monotonic() - taken > FRESH:
            answer = self._ask("GET", f"/api/jobs/{quote(name)}", allow=(404,))
            state = "" if answer.status_code == 404 else str(answer.json().get("status"))
            self._known[name] = time.monotonic(), state
        return state

    def _sent_package(self) -> str:
        if not self._package:
            content = package(ROOT)
            name = f"_ray_pkg_{hashlib.sha256(content).hexdigest()[:16]}.zip"
            place = f"/api/packages/gcs/{name}"
            if self._ask("GET", place, allow=(404,)).status_code == 404:
                self._ask("PUT", place, content=content)
            self._package = f"gcs://{name}"
        return self._package

    def _ask(
        self, verb: str, path: str, *, allow: Sequence[int] = (), **more: Any
    ) -> httpx.Response:
        try:
            answer = self._client.request(verb, path, **more)
        except httpx.HTTPError as error:
            raise JobError(
                f"No cluster answers at {self._address} ({error}); start one by "
                "`ray start --head`, or leave --cluster out."
            ) from None
        if answer.status_code in (401, 403):
            raise JobError(
                f"The cluster at {self._address} wants a token; set RAY_AUTH_TOKEN to it."
            )
        if answer.is_error and answer.status_code not in allow:
            raise JobError(
                f"{verb} {path} of the cluster: {answer.status_code} {answer.text[-500:]}"
            )
        return answer


def placing(address: str, gpus: float) -> dict[str, Any]:
    """Keywords of a service whose jobs run at an address; none for those of this machine."""
    if not address:
        return {}
    there = RayLauncher(address, gpus=gpus)  # now, so that a wrong address is told first
    return {"launcher": lambda _: there, "slots": JOBS}


def package(root: Path) -> bytes:
    """The code and the embedded model as a zip file, the same bytes for the same files."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(root):
            entry = zipfile.ZipInfo(str(path.relative_to(root)))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return whole.getvalue()


def _files(root: Path) -> Iterator[Path]:
    for folder in SENT:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and not set(path.relative_to(root).parts) & set(LEFT_OUT):
                yield path
