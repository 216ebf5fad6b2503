"""Seconds and peak memory of each method: `python -m docs.benchmarks.compress`.

Two layers shaped as in a Llama of 7B parameters, or slices of their rows. A method is timed in a
process of its own on inputs made beforehand, so that peaks do not mix; statistics are given,
since all methods share them. The embedded model's seconds are in every run's `compress_s`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch

from backend.calibrate.statistics import InputStatistics
from backend.formats import Format
from backend.measure.size import watch_peak
from backend.methods import catalogue, find
from backend.methods.base import EncodeMethod, LayerMethod, Needs, RepairMethod

BITS = {"quantise": 4.25, "prune": 9.0, "factorise": 8.0, "lossless": 16.0}


def main() -> None:
    """Time every method, each in a new process, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="1024x4096,1024x11008", help="rows x columns")
    parser.add_argument("--methods", default="", help="joined by commas; all by default")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes.split(",")]
    if options.one:
        sys.stdout.write(json.dumps([_timed(options.one, *shape) for shape in shapes]))
        return
    kinds = LayerMethod | RepairMethod | EncodeMethod
    every = [key for key, cls in catalogue().items() if issubclass(cls, kinds)]
    titles = " | ".join(f"{rows} x {columns}" for rows, columns in shapes)
    sys.stdout.write(f"| method | {titles} |\n|---|{'---|' * len(shapes)}\n")
    for key in filter(None, options.methods.split(",")) if options.methods else every:
        command = [sys.executable, "-m", "docs.benchmarks.compress", "--one", key]
        command += ["--shapes", options.shapes]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        cells = [
            f"{one['cpu_seconds']:.1f} s, {one['peak_bytes'] / 1e6:.0f} MB"
            for one in json.loads(done.stdout)
        ]
        sys.stdout.write(f"| `{key}` | {' | '.join(cells)} |\n")
        sys.stdout.flush()


def _timed(key: str, rows: int, columns: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    weight = 0.02 * torch.randn(rows, columns, generator=generator)
    statistics = InputStatistics(columns, Needs.HESSIAN)
    for _ in range(4):
        inputs = torch.randn(columns // 4 + 64, columns, generator=generator)
        inputs[:, 1:] += 0.5 * inputs[:, :-1]
        statistics.add(inputs)
    small = torch.zeros(8, 64)
    few = InputStatistics(64, Needs.HESSIAN)
    few.add(torch.randn(80, 64, generator=generator))
    _run(key, small, few, 16.0)  # libraries and caches of torch are there before
    began = time.process_time()
    with watch_peak() as peak:
        _run(key, weight, statistics)
    return {"cpu_seconds": time.process_time() - began, "peak_bytes": peak.bytes or 0}


def _run(
    key: str, weight: torch.Tensor, statistics: InputStatistics, bits: float = 0.0
) -> Format | None:
    cls = find(key)
    method = cls() if issubclass(cls, RepairMethod) else cls().at(bits or BITS[cls.family()])
    if isinstance(method, RepairMethod):
        base = find("rtn")(4.25)
        held = base.fit(weight, statistics)
        return method.at(8.0 if bits else 1.0).mend(weight, held, statistics)
    if isinstance(method, EncodeMethod):
        return method.encode(weight.to(torch.bfloat16))
    return method.fit(weight, statistics)


if __name__ == "__main__":
    main()
