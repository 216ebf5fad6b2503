"""What the command line writes: readings for people, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from backend.jobs.records import Job
from backend.measure.reading import metric
from backend.measure.recommend import HELD, Limit, Recommendation, Value
from backend.service import Service

HOUR = 3600.0  # seconds from which it is told beforehand how long a run will take


def failure(job: Job) -> dict[str, str]:
    """A job that failed, as plain values."""
    return {"recipe": job.recipe, "state": str(job.state), "reason": job.reason}


def print_run(service: Service, run_id: str, as_json: bool) -> int:
    """Print one run whole."""
    found = service.run(run_id)
    if as_json:
        write_json(asdict(found))
        return 0
    print(f"{found.recipe} on {found.model['name']}  ({found.run_id}, {found.status})")
    told = [(metric(one.name).title, cell(asdict(one)), one) for one in found.readings]
    wide = [max((len(row[at]) for row in told), default=0) for at in (0, 1)]
    for title, value, one in told:
        line = f"  {title:<{wide[0]}}  {value:>{wide[1]}}  {one.kind:<9}  {one.note}"
        print(line.rstrip())
    for note in found.notes:
        print(f"  note: {note}")
    return 0


def print_frame(frame: pd.DataFrame, x: str, y: str) -> None:
    """Print the rows of a frontier, those on it marked."""
    print(f"{'':<2}{'recipe':<44}{metric(x).title:>28}{metric(y).title:>36}")
    for row in frame.sort_values("x").itertuples():
        mark = "*" if row.on_frontier else " "
        across = cell({"value": row.x, "unit": row.x_unit, "low": row.x_low, "high": row.x_high})
        up = cell({"value": row.y, "unit": row.y_unit, "low": row.y_low, "high": row.y_high})
        print(f"{mark} {row.recipe[:43]:<44}{across:>28}{up:>36}")


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows under each other, columns as wide as their widest text, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        told = (f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True))
        print("  ".join((f"{first:<{widths[0]}}", *told)))


def cell(one: dict[str, Any] | None) -> str:
    """A reading with its interval and unit in a few letters."""
    if one is None or one["value"] is None:
        return "-"
    if one["unit"] == "B":
        return size(one["value"])
    text = _digits(one["value"])
    if _finite(one.get("low")) and _finite(one.get("high")):
        text += f" [{_digits(one['low'])}, {_digits(one['high'])}]"
    return f"{text} {one['unit']}".strip()


def _digits(value: float) -> str:
    """Four digits; large numbers whole, with thousands apart."""
    return f"{float(f'{value:.4g}'):,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def size(count: float) -> str:
    """Bytes in a unit that reads well."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def foretold(job: Job) -> str:
    """That a job is expected to take an hour or more; empty where it is not."""
    seconds = job.spec.get("predicted", {}).get("predicted_seconds", [0.0])[0]
    return f"about {duration(seconds)} to be expected" if seconds >= HOUR else ""


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A data frame as a list of plain rows."""
    return json.loads(frame.to_json(orient="records", double_precision=15))


def write_json(value: Any) -> None:
    """Write a value as JSON, alone, on standard output."""
    json.dump(value, sys.stdout, default=_plain, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def print_answer(answer: Recommendation) -> None:
    """Print what a budget is answered with, what binds, and what would change it."""
    if answer.dense is not None:
        size = reading(answer.dense.values, "resident_bytes")
        print(f"The model fits as it is, uncompressed: {size}.")
    for number, choice in enumerate(answer.choices, 1):
        told = ", ".join(
            reading(choice.candidate.values, name)
            for name in ("resident_bytes", "kld_mean", "decode_tps", "decode_speedup")
        )
        print(f"{number}. {choice.candidate.recipe}  ({choice.candidate.run_id})")
        print(f"   {choice.reason}: {told}")
    for change in answer.changes:
        print(f"With {limit_text(change.limit, change.bound)}: {change.candidate.recipe}")
    if answer.nearest is not None:
        missed = " and ".join(missed_text(*one) for one in answer.missed)
        print(
            f"Nothing measured meets this. {answer.nearest.recipe} comes nearest: misses {missed}."
        )


def reading(values: Any, name: str) -> str:
    """A candidate's reading in a few letters."""
    found: Value | None = values.get(name)
    unit = metric(name).unit
    return cell(None if found is None else asdict(found) | {"unit": unit})


def limit_text(limit: Limit, bound: float | None = None) -> str:
    """A bound on a reading as people say it."""
    name = "Weights, cache and buffers" if limit.metric == HELD else metric(limit.metric).title
    unit = "B" if limit.metric == HELD else metric(limit.metric).unit
    value = cell({"value": limit.bound if bound is None else bound, "unit": unit})
    return f"{name} {'at most' if limit.side == 'most' else 'at least'} {value}"


def missed_text(limit: Limit, share: float) -> str:
    """A bound and by how much it is missed: `... by 12 %`, or as a factor from twice on."""
    if share < 1 or limit.side == "least":
        return f"{limit_text(limit)} by {_digits(float(f'{100 * share:.3g}'))} %"
    return f"{limit_text(limit)}, with {_digits(float(f'{1 + share:.3g}'))} times as much"
