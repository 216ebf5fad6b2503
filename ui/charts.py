"""The Pareto chart: a data frame in, a figure out; knows nothing of where numbers come from.

Colours of the page (text, grid, accent) are put in by the browser, which knows light from dark;
colours of families are the same in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ui import beside, families, numbers, safe
from ui.axes import Axis, Scale, Sides

LABELS = 14
SOLID, HALF, FADED = 1.0, 0.6, 0.3  # opacity: surely on the front, perhaps, surely not
SURE = 0.95  # probability of standing on the front from which it is called sure
TOLD_APART = ("model", "protocol")  # named on hover where a chart holds several
BARRED = 150  # of one family; with more the bars hide the dots


def pareto(
    frame: pd.DataFrame,
    x: Axis,
    y: Axis,
    *,
    floor: float | None = None,
    x_limit: float | None = None,
    y_limit: float | None = None,
    knee: str = "",
    expected: Sequence[beside.Expected] = (),
    failed: Sequence[beside.Failed] = (),
) -> go.Figure:
    """The chart of every run with both readings, the frontier as a step line.

    Args:
        frame: rows of `Service.frontier`, or of `Advice.standing` to show how surely each stands.
        x: what goes to the right.
        y: what goes up.
        floor: y below which differences mean nothing, drawn as a line.
        x_limit: a bound on x; what lies beyond is shaded.
        y_limit: the same on y.
        knee: id of the run that is marked as the knee of the front.
        expected: what is thought to come, hollow, with the front of it.
        failed: attempts without a result, as crosses at the edge of the worse end of y.
    """
    across = [x_limit, *(one.x for one in (*failed, *expected))]
    up = [floor, y_limit, *(one.y for one in expected)]
    sides = Sides(x, y, Scale.of(x, frame["x"], across), Scale.of(y, frame["y"], up))
    figure = go.Figure(layout=_layout(sides))
    for position, rows in enumerate(_frontiers(frame)):
        figure.add_trace(_line(rows, sides, position))
    names, told = labels(frame), [one for one in TOLD_APART if frame[one].nunique() > 1]
    if expected:
        figure.add_traces(beside.expected_dots(expected, sides, line=frame.empty))
    for family, rows in frame.groupby("family", sort=True):
        figure.add_trace(_dots(str(family), rows, sides, names, told))
    if floor is not None and floor > 0 and y.log:
        figure.add_hline(
            y=floor,
            line={"dash": "dot", "width": 1},
            name="floor",
            annotation={
                "text": "noise of bf16",
                "font": {"size": 11},
                "xanchor": "left",
                "x": 0.005,
                "y": math.log10(floor),
                "yanchor": "bottom",
                "showarrow": False,
            },
        )
    for side, bound in (("x", x_limit), ("y", y_limit)):
        if bound is not None and bound > 0:
            figure.add_shape(**beside.shade(sides, side, bound))
    if failed:
        figure.add_trace(beside.crosses(failed, sides))
    if len(turn := frame[frame["run_id"] == knee]):
        figure.add_trace(beside.knee_mark(turn, sides))
    return figure


def _frontiers(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Runs of each frontier, that of the most runs first; only like with like is joined."""
    groups = frame.groupby(["model", "protocol", "hardware_id"], sort=True)
    by_size = sorted((rows for _, rows in groups), key=len, reverse=True)
    found = [rows[rows["on_frontier"]] for rows in by_size]
    return [rows for rows in found if len(rows)]


def labels(frame: pd.DataFrame) -> dict[str, str]:
    """Names beside the dense model and few runs of the frontier, by id; at one place they share."""
    front = frame[frame["on_frontier"]]
    if len(front) > LABELS:
        front = front.iloc[:0]
    beside = frame[(frame["family"] == "dense") & ~frame["run_id"].isin(front["run_id"])]
    found = dict.fromkeys(beside["run_id"], "dense")
    for _, rows in front.groupby(["x", "y"], sort=False):
        recipes = [safe.label(recipe, 40) for recipe in rows["recipe"]]
        rest = f" and {len(recipes) - 2} more" if len(recipes) > 2 else ""
        found[rows["run_id"].iloc[0]] = ", ".join(recipes[:2]) + rest
    return found


def hover(row: dict[str, Any], x: Axis, y: Axis, told: Sequence[str] = ()) -> str:
    """What a dot says of itself: recipe, what is `told` of its group, both numbers; text only."""
    lines = [f"<b>{safe.label(row['recipe'])}</b>"]
    if told:
        lines.append("of " + ", ".join(safe.label(row[name], 60) for name in told))
    if row["status"] != "done":
        lines.append("broken: not all of its numbers are finite")
    for axis, side in ((x, "x"), (y, "y")):
        span = numbers.interval(row[f"{side}_low"], row[f"{side}_high"], axis.unit)
        text = f"{safe.label(axis.title)}: <b>{numbers.quantity(row[side], axis.unit)}</b>"
        lines.append(text + (f"<br>  95 %: {span}" if span else "") + f", {row[f'{side}_kind']}")
    if row.get("p_front"):
        lines.append(f"on the front in {numbers.number(100 * row['p_front'])} % of draws")
    elif row["on_frontier"]:
        lines.append("on the frontier")
    return "<br>".join(lines)


def _layout(sides: Sides) -> dict[str, Any]:
    x, y, across, up = sides.x, sides.y, sides.across, sides.up
    shared = {"zeroline": False, "showline": True, "ticks": "outside", "ticklen": 4}
    return {
        "template": "none",
        "margin": {"l": 84, "r": 24, "t": 14, "b": 56},
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": "zoom",
        "uirevision": f"{x.name}|{y.name}",
        "xaxis": across.axis(x.unit)
        | shared
        | {"title": {"text": _title(x, "←", "→"), "standoff": 14}},
        "yaxis": up.axis(y.unit)
        | shared
        | {"title": {"text": _title(y, "↓", "↑"), "standoff": 16}},
    }


def _title(axis: Axis, less: str, more: str) -> str:
    unit = "" if axis.unit in ("", "B", "%", "×") else f", {axis.unit}"
    arrow = {"lower": f"   {less} better", "higher": f"   {more} better"}.get(axis.direction, "")
    return safe.label(f"{axis.title}{unit}{arrow}")


def _line(rows: pd.DataFrame, sides: Sides, position: int) -> go.Scatter:
    rows = rows.sort_values(["x", "y"], kind="stable")
    return go.Scatter(
        x=sides.across.place(rows["x"]),
        y=sides.up.place(rows["y"]),
        mode="lines",
        name="frontier",
        hoverinfo="skip",
        meta={"role": "frontier", "group": position},
        line={"shape": "vh" if sides.x.direction == "higher" else "hv", "width": 2},
    )


def _dots(
    family: str, rows: pd.DataFrame, sides: Sides, names: dict[str, str], told: Sequence[str]
) -> go.Scatter:
    colour, symbol = families.mark(family)
    points = rows.to_dict("records")
    front = [bool(point["on_frontier"]) for point in points]
    barred = len(points) <= BARRED
    return go.Scatter(
        x=sides.across.place(rows["x"]),
        y=sides.up.place(rows["y"]),
        mode="markers+text",
        name=safe.label(family),
        text=[names.get(point["run_id"], "") for point in points],
        textposition=[
            "top left" if sides.across.share(value) > 0.8 else "top right" for value in rows["x"]
        ],
        textfont={"size": 11},
        hovertext=[hover(point, sides.x, sides.y, told) for point in points],
        hovertemplate="%{hovertext}<extra></extra>",
        customdata=[point["run_id"] for point in points],
        meta={"role": "dots", "family": safe.label(family)},
        error_x=_bars(points, "x", sides.across) if barred else None,
        error_y=_bars(points, "y", sides.up) if barred else None,
        marker={
            "color": colour,
            "symbol": [_symbol(point, symbol) for point in points],
            "size": [12 if each else 9 for each in front],
            "opacity": [_opacity(point) for point in points],
            "line": {"width": [1.5 if each else 0.5 for each in front]},
        },
    )


def _opacity(point: dict[str, Any]) -> float:
    share = point.get("p_front", float(point["on_frontier"]))
    return SOLID if share >= SURE else HALF if share >= 1 - SURE else FADED


def _symbol(point: dict[str, Any], symbol: str) -> str:
    if point["status"] != "done":
        return "x-thin-open"
    hollow = "estimated" in (point["x_kind"], point["y_kind"])
    return f"{symbol}-open" if hollow else symbol


def _bars(points: Sequence[dict[str, Any]], side: str, scale: Scale) -> dict[str, Any]:
    above, below = [], []
    for point in points:
        value, low, high = (point[key] for key in (side, f"{side}_low", f"{side}_high"))
        known = None not in (low, high) and math.isfinite(low) and math.isfinite(high)
        drawn = known and (value > 0 or not scale.log)
        above.append(max(0.0, high - value) if drawn else 0.0)
        below.append(max(0.0, value - low) if drawn else 0.0)
    shown = any(above) or any(below)
    return {
        "type": "data",
        "array": above,
        "arrayminus": below,
        "visible": shown,
        "thickness": 1,
        "width": 3,
    }
