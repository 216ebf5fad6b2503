"""Time to a frontier: a cold sweep of the embedded model, `python -m docs.benchmarks.frontier`.

Prints JSON: seconds from submitting to the twelfth and to the last point, points, families,
load of the machine before, and seconds that the web process takes to import.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from backend.measure.hardware import hardware
from backend.service import Service

METHODS = "rtn,gptq,magnitude,wanda,sparsegpt,svd,lord,slicegpt,kv-int,copyspec"
BUDGETS = "4,8,3"
ROOT = Path(__file__).parents[2]


def main() -> None:
    """Sweep in a new home folder and tell the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--budgets", default=BUDGETS)
    parser.add_argument("--tier", default="quick")
    parser.add_argument("--home", type=Path, help="keep the results in this new folder")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as new, Service(options.home or Path(new)) as service:
        known = service.store.results.count()
        began = time.monotonic()
        sweep = service.sweep(
            options.methods.split(","),
            [float(bits) for bits in options.budgets.split(",")],
            tier=options.tier,
        )
        arrived = _watch(service, known, len(sweep.submissions), began)
        families = set(service.runs()["family"])
        found = {
            "points": len(arrived),
            "families": len(families),
            "refused": len(sweep.refusals),
            "seconds_to_12": round(arrived[11], 1) if len(arrived) > 11 else None,
            "seconds_to_all": round(arrived[-1], 1),
            "load_before": load,
            "import_seconds": _import_seconds(),
            "hardware": hardware(),
        }
    json.dump(found, sys.stdout, indent=1)
    sys.stdout.write("\n")


def _watch(service: Service, known: int, expected: int, began: float) -> list[float]:
    arrived: list[float] = []
    while len(arrived) < expected:
        done = service.store.results.count() - known
        arrived += [time.monotonic() - began] * (done - len(arrived))
        if not any(job.active for job in service.jobs()):
            break
        time.sleep(0.1)
    return arrived


def _import_seconds() -> float:
    code = (
        "import time; began = time.perf_counter(); import backend.service; "
        "print(time.perf_counter() - began)"
    )
    command = [sys.executable, "-c", code]
    times = [
        float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    return round(sorted(times)[1], 2)


if __name__ == "__main__":
    main()
