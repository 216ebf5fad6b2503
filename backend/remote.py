"""An attempt on a machine of a cluster: `python -m backend.remote NAME SPECIFICATION`.

The same runner as at home, in a home folder of this machine; its stream goes to standard output,
and the result document within it, as whoever reads the stream may not see this machine's files.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from backend.home import home_folder
from backend.jobs.launchers import ROOT, assignment, worker_environment
from backend.jobs.lifelines import Lock
from backend.jobs.processes import MARK
from backend.jobs.runner import Runner

HERE = "@paretoscope"
"""Stands in a specification for the folder of the code, which differs between machines."""
PERIOD = 0.1  # seconds between looks at the stream


def sent(name: str, spec: dict[str, Any], run: tuple[str, ...]) -> list[str]:
    """Arguments that carry an attempt to another machine."""
    text = json.dumps({"spec": spec, "run": run}, allow_nan=False)
    return [name, text.replace(str(ROOT), HERE)]


def main() -> int:
    """Run the attempt, its stream going out as it grows."""
    name, text = sys.argv[1:]
    carried = json.loads(text.replace(HERE, str(ROOT)))
    folder = home_folder() / "attempts" / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / "lock")
    stream = folder / "out.jsonl"
    if not lock.acquire(timeout=2) or stream.exists():
        return 1  # this attempt is another's: names are given once
    (folder / "spec.json").write_text(json.dumps(assignment(carried["spec"], carried["run"], None)))
    environment = worker_environment() | {MARK: name}
    os.environ.clear()
    os.environ.update(environment)
    over = threading.Event()
    pump = threading.Thread(target=_pump, args=(stream, over))
    pump.start()
    try:
        Runner(folder).run()
    finally:
        over.set()
        pump.join()
    return 0


def _pump(stream: Path, over: threading.Event) -> None:
    offset = 0
    last = False
    while not last:
        last = over.wait(PERIOD)
        if not stream.exists():
            continue
        with stream.open("rb") as file:
            file.seek(offset)
            chunk = file.read()
        whole = chunk[: chunk.rfind(b"\n") + 1]
        offset += len(whole)
        for line in whole.splitlines():
            sys.stdout.buffer.write(_complete(line) + b"\n")
        sys.stdout.flush()


def _complete(line: bytes) -> bytes:
    """A line of the stream, with the document that a result points to."""
    event = json.loads(line)
    if event["kind"] != "result":
        return line
    document = json.loads(Path(event["data"]["path"]).read_text(encoding="utf-8"))
    event["data"] = {"run_id": event["data"]["run_id"], "document": document}
    return json.dumps(event).encode()


if __name__ == "__main__":
    sys.exit(main())
