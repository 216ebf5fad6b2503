"""Acceptance of the embedded model: `python -m docs.benchmarks.acceptance [--home FOLDER]`.

Runs what the card's table needs, compares paired on the same tokens, and prints the table in
Markdown. A line holds only where the interval says so; one that does not hold is printed too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from backend.jobs.records import Job
from backend.measure.scores import TokenScores, compare
from backend.service import Service

INT8 = "rtn(bits=8.125, group_size=0, symmetric=True)"
PAIRS = (
    ("GPTQ beats round-to-nearest at 4 bits", "gptq@4.25", "rtn@4.25"),
    ("GPTQ beats round-to-nearest at 3 bits", "gptq@3.25", "rtn@3.25"),
    ("SparseGPT beats Wanda at 50 %", "sparsegpt@9", "wanda@9"),
    ("Wanda beats magnitude at 50 %", "wanda@9", "magnitude@9"),
    ("Outputs' low rank (LoRD) beats the weights' (SVD) at 12 bits", "lord@12", "svd@12"),
    ("4-bit keys by channel beat keys by token", "kv-int@5", "kv-int(bits=5, keys=by token)"),
    ("3-bit keys by channel beat keys by token", "kv-int@4", "kv-int(bits=4, keys=by token)"),
)
RATIOS = (
    ("8 bits a row stay within 0.2 % of dense", INT8, 0.998, 1.002),
    ("4 bits in groups of 128 cost 1 to 10 % perplexity", "rtn@4.25", 1.01, 1.10),
    ("3 bits cost clearly more", "rtn@3.25", 1.10, float("inf")),
)
BREAKING = ("rtn@3.25", "wanda@9", "lord@12", "slicegpt@14", "kv-int@4")


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--tier", default="quick")
    options = parser.parse_args()
    with Service(options.home) as service:
        recipes = {recipe for _, *pair in PAIRS for recipe in pair}
        recipes |= {recipe for _, recipe, *_ in RATIOS} | set(BREAKING) | {"dense"}
        runs = {recipe: service.submit(recipe, tier=options.tier) for recipe in sorted(recipes)}
        for recipe, submission in runs.items():
            if submission.job_id:
                _finished(service.wait(submission.job_id, 900), recipe)
        ids = {recipe: submission.run_id for recipe, submission in runs.items()}
        write = sys.stdout.write
        write("| what should hold | measured | holds |\n|---|---|---|\n")
        for text, recipe, low, high in RATIOS:
            one = service.run(ids[recipe]).reading("ppl_ratio")
            holds = low <= one.value <= high
            write(
                f"| {text} | {one.value:.4f} [{one.low:.4f}, {one.high:.4f}] | {_told(holds)} |\n"
            )
        for text, better, worse in PAIRS:
            first, second = (_scores(service, ids[recipe]) for recipe in (better, worse))
            found = compare(first, second)
            write(
                f"| {text} | KLD {first.kld.mean():.4g} against {second.kld.mean():.4g}, "
                f"difference {found.value:.3g} [{found.low:.3g}, {found.high:.3g}] "
                f"| {_told(found.high < 0)} |\n"
            )
        _write_breaking(service, ids)


def _write_breaking(service: Service, ids: dict[str, str]) -> None:
    dense = service.run(ids["dense"])
    abilities = [one.name for one in dense.readings if one.name.startswith("ability_")]
    names = [name.removeprefix("ability_") for name in abilities]
    write = sys.stdout.write
    write(f"\n| recipe | {' | '.join(names)} | ppl ratio |\n")
    write("|---" * (len(names) + 2) + "|\n")
    for recipe in ("dense", *BREAKING):
        run = service.run(ids[recipe])
        cells = [f"{run.reading(name).value:.0f}" for name in abilities]
        ratio = run.reading("ppl_ratio")
        write(f"| {recipe} | {' | '.join(cells)} | {ratio.value:.3f} |\n")


def _scores(service: Service, run_id: str) -> TokenScores:
    key = service.run(run_id).artefact["key"]
    return TokenScores.load(service.home / "artefacts" / f"{key}.tokens.safetensors")


def _finished(job: Job, recipe: str) -> None:
    if job.state != "done":
        raise SystemExit(f"{recipe}: {job.state}, {job.reason}")


def _told(holds: bool) -> str:
    return "yes" if holds else "**no**"


if __name__ == "__main__":
    main()
