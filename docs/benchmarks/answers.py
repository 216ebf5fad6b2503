"""Times a new budget from kept tables, and a search against a sweep.

`python -m docs.benchmarks.answers`.
With `--solve`, runs `solve` at these budgets on the embedded model in a home folder and compares
answers and seconds with all single-method runs that the folder holds of a sweep.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

from backend.budget import Budget
from backend.measure.catalogue import PROTOCOL
from backend.search.base import cost
from backend.search.integer_program import solve as divide
from backend.service import Service
from backend.solve import solve

LADDER = (1.3, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5.25, 6.25, 7.25, 8.25, 9.0)
SHAPES = {"embedded": (4, 8_192, 16_384, 16_384, 8_192, 32_768, 32_768, 32_768)}
SHAPES["7B"] = (32, *(4 * [4096 * 4096]), *(3 * [4096 * 11008]))


def table(shapes: tuple[int, ...], seed: int) -> tuple[list[list[int]], list[list[float]]]:
    """Bytes and losses of a model's matrices at every level, losses falling fourfold a bit."""
    blocks, *numbers = shapes
    draw = random.Random(seed)
    costs, losses = [], []
    for count in numbers * blocks:
        worth = draw.lognormvariate(0, 1.5)
        costs.append([int(count * bits / 8) for bits in LADDER])
        losses.append([worth * 4**-bits * draw.lognormvariate(0, 0.1) for bits in LADDER])
    return costs, losses


def resolving() -> None:
    """Print the time of a new budget from a table that is known."""
    for name, shapes in SHAPES.items():
        times = []
        for seed in range(12):
            costs, losses = table(shapes, seed)
            budget = int(sum(row[-1] for row in costs) / 9 * (2.2 + seed % 4))
            start = time.perf_counter()
            levels = divide(costs, losses, budget)
            times.append(1000 * (time.perf_counter() - start))
            if not 0.98 * budget <= cost(costs, levels) <= budget:
                raise SystemExit("The budget was not kept, or not used.")
        middle = statistics.median(times)
        sys.stdout.write(
            f"{name}: {middle:.0f} ms ({min(times):.0f} to {max(times):.0f}) a budget, exact\n"
        )


def searching(home: Path | None, budgets: list[str]) -> None:
    """Print what `solve` answers at each budget, and what a sweep had to offer."""
    with Service(home) as service:
        for text in budgets:
            found = solve(service, text, watch=lambda line: sys.stderr.write(f"{line}\n"))
            first = found.answer.choices[0].candidate
            frame = service.runs(metrics=("resident_bytes", "kld_mean"))
            single = frame[~frame["recipe"].str.contains(r"\+| by ", regex=True)]
            quick = single[single["protocol"] == f"{PROTOCOL} quick"]
            fits = quick[quick["resident_bytes"] <= Budget.parse(text).nbytes]
            best = fits.sort_values("kld_mean").iloc[0]
            sys.stdout.write(
                f"{text}: {first.recipe} {first.values['kld_mean'].value:.4g} nats in "
                f"{found.seconds:.0f} s of {len(found.evaluations)} runs; the sweep's best "
                f"{best['recipe']} {best['kld_mean']:.4g} in {quick['seconds'].sum():.0f} s of "
                f"{len(quick)} runs\n"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--solve", nargs="*", metavar="BUDGET", help="such as '750 kB'")
    parser.add_argument("--home", type=Path, help="folder of all state that holds a sweep")
    options = parser.parse_args()
    resolving()
    if options.solve:
        searching(options.home, options.solve)
