"""Own a queue as the page's process does: `python -m tests.queue_owner HOME MODE JOBS PRELOAD`.

Submits run after run, prints `ACCEPTED run job` for each, works until all are over, exits 0.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from backend.jobs.dispatcher import Dispatcher
from backend.jobs.launchers import LocalLauncher
from backend.jobs.ledger import Ledger
from backend.store.errors import HomeBusyError
from backend.store.store import Store


def main() -> int:
    home, mode, count, preload = sys.argv[1:]
    try:
        store = Store(Path(home))
    except HomeBusyError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    launcher = LocalLauncher(Path(home), ["tests.fake_attempt:run"], preload.split())
    ledger = Ledger(store, launcher)
    with store, Dispatcher(ledger, period=0.02):
        for number in range(int(count)):
            run_id = f"{number:016x}"
            known = {job.run_id: job.job_id for job in ledger.jobs()}
            job_id = known.get(run_id)
            if job_id is None:
                spec = {"run_id": run_id, "mode": mode, "pause": 0.15}
                job_id = ledger.submit(run_id, spec, max_attempts=50).job_id
                again = ledger.submit(run_id, spec)
                assert again.job_id == job_id, "a double click made two jobs"
            os.write(1, f"ACCEPTED {run_id} {job_id}\n".encode())
            time.sleep(0.05)
        while any(job.active for job in ledger.jobs()):
            time.sleep(0.05)
    launcher.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
