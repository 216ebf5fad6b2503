"""The runs of a view as rows, in any order: the same runs as the chart, and those that failed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from backend.errors import UnknownNameError
from backend.service import Filter, Service
from ui import numbers, safe

METRICS = ("resident_bytes", "footprint_bytes", "kld_mean", "top1_agree", "decode_speedup")
WORDS = {"recipe": "Recipe", "model": "Model", "family": "Family", "standing": "Standing"}
ROWS = 500  # more would only slow the browser
_STANDINGS = ("frontier", "tie", "", "broken")  # others, which failed, follow


def table(service: Service, frame: pd.DataFrame, chosen: Filter, order: str = "") -> dict[str, Any]:
    """Rows of every run and attempt, with what their columns are called and sorted by.

    Args:
        service: whom to ask.
        frame: the chart's runs, which tell who stands on the frontier.
        chosen: which runs are meant.
        order: name of a column, with `-` before it from the last to the first; without it the
            frontier comes first, then the smallest, and failed attempts last with their reason.

    Raises:
        UnknownNameError: no column of that name.
    """
    known = [service.metric(name) for name in METRICS]
    runs = service.runs(chosen, METRICS, failed=True)
    standing = dict(zip(frame["run_id"], frame["on_frontier"], strict=True))
    tied = set(frame[frame["tied"]]["run_id"]) if "tied" in frame else set()
    rows = []
    for run in runs.to_dict("records"):
        run_id, status = run["run_id"], run["status"]
        state = "frontier" if standing.get(run_id) else "tie" if run_id in tied else ""
        rows.append(
            {
                "run_id": run_id if status in ("done", "broken") else "",
                "recipe": safe.plain(run["recipe"]),
                "family": run["family"],
                "model": safe.plain(run["model"], 100),
                "standing": state if status == "done" else status,
                "reason": safe.plain(run["reason"], 400),
                "cells": [numbers.quantity(run[one["name"]], one["unit"]) for one in known],
                "values": {name: run[name] for name in METRICS},
            }
        )
    rows.sort(key=_usual)
    count, rows = len(rows), _ordered(rows, order)[:ROWS]
    for row in rows:
        del row["values"]
    several = len({row["model"] for row in rows}) > 1
    titles = {key: title for key, title in WORDS.items() if several or key != "model"}
    words = [_column(key, title, key) for key, title in titles.items()]
    numbered = [_column(one["name"], one["title"], _best_first(one), one["help"]) for one in known]
    return {"columns": words + numbered, "rows": rows, "count": count, "models": several}


def _column(name: str, title: str, first: str, told: str = "") -> dict[str, str]:
    """A column: key, heading, the order it is sorted in at first, and what it means."""
    return {"name": name, "title": title, "first": first, "help": told}


def _usual(row: dict[str, Any]) -> tuple[bool, bool, float]:
    size = row["values"][METRICS[0]]
    return not row["run_id"], row["standing"] != "frontier", size if _known(size) else math.inf


def _ordered(rows: list[dict[str, Any]], order: str) -> list[dict[str, Any]]:
    """Rows in the order asked for; what is not known comes last either way."""
    name, backwards = order.removeprefix("-"), order.startswith("-")
    if not order:
        return rows
    if name in WORDS:
        return sorted(rows, key=_WORTH.get(name, lambda row: row[name]), reverse=backwards)
    if name not in METRICS:
        told = ", ".join([*WORDS, *METRICS])
        raise UnknownNameError(f"A table is sorted by one of {told}, not by {name[:80]!r}.")
    known = [row for row in rows if _known(row["values"][name])]
    known.sort(key=lambda row: row["values"][name], reverse=backwards)
    return known + [row for row in rows if not _known(row["values"][name])]


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _in_reading_order(row: dict[str, Any]) -> list[tuple[bool, float, str]]:
    """A recipe's words, with its numbers as numbers: `gptq@3` comes before `gptq@10`."""
    parts = re.split(r"(\d+(?:\.\d+)?)", row["recipe"])
    return [
        (at % 2 == 1, float(part) if at % 2 else 0.0, "" if at % 2 else part)
        for at, part in enumerate(parts)
    ]


def _by_standing(row: dict[str, Any]) -> tuple[int, str]:
    state = row["standing"]
    return _STANDINGS.index(state) if state in _STANDINGS else len(_STANDINGS), state


_WORTH: dict[str, Callable[[dict[str, Any]], Any]] = {
    "recipe": _in_reading_order,
    "standing": _by_standing,
}


def _best_first(metric: dict[str, Any]) -> str:
    """The order in which the best comes first."""
    return f"-{metric['name']}" if metric["direction"] == "higher" else metric["name"]
