"""What the page shows of many runs: chart, choices, and where they come from, as plain values.

All text is plain text: the browser puts it in as text, never as markup.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from backend.errors import ModelError, ParetoscopeError
from backend.limits import Limits
from backend.service import Filter, Service
from ui import beside, charts, numbers, safe, sense, table
from ui.axes import Axis
from ui.catalogue import GROUPS, axis, family_mark, family_order, hardware_name, known_run

CROSSES = 12  # failed attempts on the chart; the table has all
DOTS = 2_000  # of the chart; the frontier is always whole
DEFAULT_X, DEFAULT_Y = "resident_bytes", "kld_mean"


def start(service: Service, limits: Limits) -> dict[str, Any]:
    """What the page needs once: axes, filters, families, where links lead."""
    axes = [service.metric(name) for name in service.axes()["name"]]
    order = list(GROUPS)
    axes.sort(key=lambda one: (order.index(one["group"]), one["title"]))
    choices = service.choices()
    keys = ("name", "title", "unit", "direction", "help")
    space = os.environ.get("SPACE_ID", "")
    return {
        "axes": [{k: one[k] for k in keys} | {"group": GROUPS[one["group"]]} for one in axes],
        "x": DEFAULT_X,
        "y": DEFAULT_Y,
        "models": sorted(set(choices["model"])),
        "families": [
            family_mark(name) for name in sorted(set(choices["family"]), key=family_order)
        ],
        "hardware": [
            {"id": one, "text": hardware_name(service, one)}
            for one in sorted(set(choices["hardware_id"]))
        ],
        "protocols": sorted(set(choices["protocol"])),
        "notice": safe.plain(service.notice),
        "public": limits.public,
        "largest": limits.results,
        "link": f"https://huggingface.co/spaces/{space}" if space else "",
    }


@dataclass(frozen=True)
class Drawing:
    """What is drawn beside the runs themselves.

    Attributes:
        x: what is at most, or at least, wanted across; what lies beyond is shaded.
        y: the same up.
        judged: how surely each run stands on the front, its knee and its area; takes a moment.
        expected: what methods are thought to come to on the one model that is chosen.
        order: of the table, as `table` takes it.
    """

    x: float | None = None
    y: float | None = None
    judged: bool = False
    expected: bool = False
    order: str = ""


def figure(
    service: Service, x: str, y: str, chosen: Filter, wanted: Drawing = Drawing()
) -> dict[str, Any]:
    """The chart, the same as a table, and where it was measured; the dense model always there."""
    across, up = axis(service, x), axis(service, y)
    frame, chosen, model = _drawn(service, x, y, chosen, judged=wanted.judged)
    usual = (x, y) == (DEFAULT_X, DEFAULT_Y)
    summary = service.advice.summary(chosen) if usual and wanted.judged else None
    expected = _expected(service, frame, model, chosen) if usual and wanted.expected else []
    floor = _floor(service, frame) if y == "kld_mean" else None
    drawn = charts.pareto(
        _sample(frame),
        across,
        up,
        floor=floor,
        x_limit=wanted.x,
        y_limit=wanted.y,
        knee="" if summary is None else summary.knee,
        expected=expected,
        failed=_failed(service, x, chosen) if len(frame) else (),
    )
    return {
        "figure": json.loads(drawn.to_json()),
        "points": len(frame),
        "expected": len(expected),
        "table": table.table(service, frame, chosen, wanted.order),
        "origin": origin(service, frame),
        "summary": _summary(frame, across, up),
        "sense": sense.sense(service, frame, x, y),
        "standing": "" if summary is None else _standing(service, summary),
    }


def rows(
    service: Service, x: str, y: str, chosen: Filter, wanted: Drawing = Drawing()
) -> dict[str, Any]:
    """The table of a chart without the chart."""
    frame, chosen, _ = _drawn(service, x, y, chosen, judged=wanted.judged)
    return table.table(service, frame, chosen, wanted.order)


def origin(service: Service, frame: pd.DataFrame) -> str:
    """Where and when the runs were measured, in one line."""
    if frame.empty:
        return ""
    machines = {one: hardware_name(service, one) for one in sorted(set(frame["hardware_id"]))}
    names = dict.fromkeys(machines.values())
    more = len(machines) - len(names)
    days = sorted(str(one)[:10] for one in frame["created"])
    span = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    protocols = ", ".join(sorted(set(frame["protocol"])))
    newest = frame.loc[frame["created"].astype(str).idxmax(), "run_id"]
    run = known_run(service, newest)
    commit = "" if run is None else run.manifest.get("software", {}).get("commit", "")
    places = "; ".join(names) + (f" and {more} alike" if more else "")
    told = f"Measured on {places} · {span} · protocol {protocols}"
    return safe.plain(f"{told} · commit {commit}" if commit else told)


def _drawn(
    service: Service, x: str, y: str, chosen: Filter, *, judged: bool
) -> tuple[pd.DataFrame, Filter, str]:
    """The runs of a chart, what was chosen as it is meant, and the one model that is asked for."""
    if chosen.families:
        chosen = replace(chosen, families=tuple(sorted({*chosen.families, "dense"})))
    model = chosen.models[0] if len(chosen.models) == 1 else "default"
    if len(chosen.models) == 1:  # which may be a folder
        with suppress(ModelError):
            chosen = replace(chosen, models=(service.advice.named(model),))
    return (service.advice.standing if judged else service.frontier)(x, y, chosen), chosen, model


def _sample(frame: pd.DataFrame) -> pd.DataFrame:
    """All runs, or the frontier and as many others, picked evenly, as a chart can take."""
    if len(frame) <= DOTS:
        return frame
    front = frame["on_frontier"]
    others = frame[~front]
    step = -(-len(others) // max(1, DOTS - int(front.sum())))
    return pd.concat([frame[front], others.iloc[::step]])


def _failed(service: Service, x: str, chosen: Filter) -> list[beside.Failed]:
    """Attempts without a result, on the one axis where it is known what they would have been."""
    if x != DEFAULT_X:
        return []
    runs = service.runs(chosen, failed=True)
    found = []
    for run in runs[~runs["status"].isin(("done", "broken"))].head(CROSSES).to_dict("records"):
        with suppress(ParetoscopeError):
            known = service.estimate(run["recipe"], run["model"])
            if known is not None:
                found.append(beside.Failed(run["recipe"], known.resident_bytes, run["reason"]))
    return found


def _expected(
    service: Service, frame: pd.DataFrame, model: str, chosen: Filter
) -> list[beside.Expected]:
    """What was not run yet of a model."""
    known = set(frame[frame["model"] == service.advice.named(model)]["recipe"])
    return [
        beside.Expected(
            *(row[name] for name in ("recipe", "family", "resident_bytes", "kld_mean")),
            *(row[name] for name in ("kld_low", "kld_high", "basis")),
        )
        for row in service.advice.expected(model).to_dict("records")
        if row["recipe"] not in known and (not chosen.families or row["family"] in chosen.families)
    ]


def _standing(service: Service, summary: Any) -> str:
    """How much the front covers, and where it turns."""
    area = numbers.quantity(100 * summary.hypervolume, "%")
    span = numbers.interval(100 * summary.low, 100 * summary.high, "%")
    told = (
        f"The front covers {area} (95 %: {span}) of the square from 1 bit a weight at the noise "
        "of bf16 to the dense size at 1 nat."
    )
    run = known_run(service, summary.knee) if summary.knee else None
    if run is None:
        return told
    share = numbers.number(100 * summary.knee_share)
    return safe.plain(f"{told} Its knee is {run.recipe}, in {share} % of draws.")


def _floor(service: Service, frame: pd.DataFrame) -> float | None:
    if len(set(zip(frame["model"], frame["protocol"], strict=True))) != 1:
        return None
    run = known_run(service, frame["run_id"].iloc[0])
    found = None if run is None else run.reading("kld_floor")
    return None if found is None else found.value


def _summary(frame: pd.DataFrame, x: Axis, y: Axis) -> str:
    count = int(frame["on_frontier"].sum())
    drawn = f", some {DOTS:,} of them drawn" if len(frame) > DOTS else ""
    runs = "1 run" if len(frame) == 1 else f"{len(frame):,} runs"
    return (
        f"{runs}{drawn}, {count} on the frontier of "
        f"{x.title.lower()} against {y.title.lower() if y.title[:2] != 'KL' else y.title}."
    )
