"""The Pareto chart: a data frame in, a figure out; knows nothing of where numbers come from.

Colours of the page (text, grid, accent) are put in by the browser, which knows light from dark;
colours of families are the same in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ui import numbers, safe
from ui.axes import Axis, Scale

# Colour and symbol together tell a family, so that neither is needed alone.
FAMILIES: dict[str, tuple[str, str]] = {
    "quantise": ("#4f6bed", "circle"),
    "prune": ("#d9480f", "triangle-up"),
    "factorise": ("#0b9384", "square"),
    "structure": ("#b5179e", "pentagon"),
    "cache": ("#b7860b", "star"),
    "decode": ("#2f9e44", "cross"),
    "mixed": ("#8a5cf6", "hexagram"),
    "dense": ("#64748b", "diamond"),
    "attend": ("#0c8ec4", "triangle-down"),
    "encode": ("#a8572a", "bowtie"),
    "rotate": ("#c2255c", "triangle-left"),
    "distil": ("#66801a", "triangle-right"),
}
_SPARE = ("#4c6e8a", "hexagon")
LABELS = 14
BARRED = 150  # of one family; with more the bars hide the dots


def mark(family: str) -> tuple[str, str]:
    """Colour and symbol of a family."""
    return FAMILIES.get(family, _SPARE)


def pareto(
    frame: pd.DataFrame,
    x: Axis,
    y: Axis,
    *,
    floor: float | None = None,
    x_limit: float | None = None,
    y_limit: float | None = None,
    tied: set[str] | None = None,
    failed: Sequence[Failed] = (),
) -> go.Figure:
    """The chart of every run with both readings, the frontier as a step line.

    Args:
        frame: rows of `Service.frontier`.
        x: what goes to the right.
        y: what goes up.
        floor: y below which differences mean nothing, drawn as a line.
        x_limit: a bound on x; what lies beyond is shaded.
        y_limit: the same on y.
        tied: what `ties` says of the frame, where it is known already.
        failed: attempts without a result, as crosses at the edge of the worse end of y.
    """
    across = [x_limit, *(one.x for one in failed)]
    sides = _Sides(x, y, Scale.of(x, frame["x"], across), Scale.of(y, frame["y"], [floor, y_limit]))
    figure = go.Figure(layout=_layout(sides))
    tied = ties(frame) if tied is None else tied
    for position, rows in enumerate(_frontiers(frame)):
        figure.add_trace(_line(rows, sides, position))
    names = labels(frame)
    for family, rows in frame.groupby("family", sort=True):
        figure.add_trace(_dots(str(family), rows, sides, tied, names))
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
            figure.add_shape(**_shade(sides, side, bound))
    if failed:
        figure.add_trace(_crosses(failed, sides))
    return figure


def _frontiers(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Runs of each frontier, that of the most runs first; only like with like is joined."""
    groups = frame.groupby(["model", "protocol", "hardware_id"], sort=True)
    by_size = sorted((rows for _, rows in groups), key=len, reverse=True)
    found = [rows[rows["on_frontier"]] for rows in by_size]
    return [rows for rows in found if len(rows)]


def ties(frame: pd.DataFrame) -> set[str]:
    """Ids of runs off the frontier that none of its runs beats beyond doubt.

    A run is beaten beyond doubt when another is better in one reading by more than both
    intervals, and not worse in the other. Sizes are counted, so half a percent is their doubt.
    """
    found = set()
    keys = ["model", "protocol", "hardware_id"]
    for _, rows in frame.groupby(keys, sort=False):
        rivals = rows[rows["on_frontier"]].to_dict("records")
        others = rows[~rows["on_frontier"] & (rows["status"] == "done")].to_dict("records")
        if rivals:
            found |= {
                row["run_id"] for row in others if not any(_beaten(row, rival) for rival in rivals)
            }
    return found


def labels(frame: pd.DataFrame) -> dict[str, str]:
    """Names written beside runs of the frontier, by id; runs at one place share one label."""
    front = frame[frame["on_frontier"]]
    if len(front) > LABELS:
        return {}
    found = {}
    for _, rows in front.groupby(["x", "y"], sort=False):
        recipes = [safe.label(recipe, 40) for recipe in rows["recipe"]]
        rest = f" and {len(recipes) - 2} more" if len(recipes) > 2 else ""
        found[rows["run_id"].iloc[0]] = ", ".join(recipes[:2]) + rest
    return found


def hover(row: dict[str, Any], x: Axis, y: Axis, tied: bool = False) -> str:
    """What a dot says of itself: recipe and both numbers, as text only."""
    lines = [f"<b>{safe.label(row['recipe'])}</b>"]
    if row["status"] != "done":
        lines.append("broken: not all of its numbers are finite")
    for axis, side in ((x, "x"), (y, "y")):
        span = numbers.interval(row[f"{side}_low"], row[f"{side}_high"], axis.unit)
        text = f"{safe.label(axis.title)}: <b>{numbers.quantity(row[side], axis.unit)}</b>"
        lines.append(text + (f"<br>  95 %: {span}" if span else "") + f", {row[f'{side}_kind']}")
    standing = "on the frontier" if row["on_frontier"] else "ties with the frontier" if tied else ""
    return "<br>".join([*lines, *([standing] if standing else [])])


@dataclass(frozen=True)
class Failed:
    """An attempt that ended without a result, where its size was estimated to lie."""

    recipe: str
    x: float
    reason: str


@dataclass(frozen=True)
class _Sides:
    """Both axes and where values lie on them."""

    x: Axis
    y: Axis
    across: Scale
    up: Scale


def _layout(sides: _Sides) -> dict[str, Any]:
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


def _line(rows: pd.DataFrame, sides: _Sides, position: int) -> go.Scatter:
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
    family: str, rows: pd.DataFrame, sides: _Sides, tied: set[str], names: dict[str, str]
) -> go.Scatter:
    colour, symbol = mark(family)
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
        hovertext=[hover(point, sides.x, sides.y, point["run_id"] in tied) for point in points],
        hovertemplate="%{hovertext}<extra></extra>",
        customdata=[point["run_id"] for point in points],
        meta={"role": "dots", "family": safe.label(family)},
        error_x=_bars(points, "x", sides.across) if barred else None,
        error_y=_bars(points, "y", sides.up) if barred else None,
        marker={
            "color": colour,
            "symbol": [_symbol(point, symbol) for point in points],
            "size": [12 if each else 9 for each in front],
            "opacity": [
                1.0 if each or point["run_id"] in tied else 0.55
                for each, point in zip(front, points, strict=True)
            ],
            "line": {"width": [1.5 if each else 0.5 for each in front]},
        },
    )


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


def _beaten(row: dict[str, Any], rival: dict[str, Any]) -> bool:
    clearly, worse = False, False
    for side in ("x", "y"):
        sign = -1.0 if row[f"{side}_direction"] == "higher" else 1.0
        lead = sign * (row[side] - rival[side])
        doubt = _doubt(row, side) + _doubt(rival, side)
        clearly |= lead > doubt
        worse |= lead < 0
    return clearly and not worse


def _doubt(row: dict[str, Any], side: str) -> float:
    low, high = row[f"{side}_low"], row[f"{side}_high"]
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return abs(row[side]) * 0.0025
    return (high - low) / 2


def _crosses(failed: Sequence[Failed], sides: _Sides) -> go.Scatter:
    edge = sides.up.low if sides.y.direction == "higher" else sides.up.high
    return go.Scatter(
        x=sides.across.place(pd.Series([one.x for one in failed])),
        y=[edge] * len(failed),
        mode="markers",
        name="failed",
        hovertext=[
            f"<b>{safe.label(one.recipe)}</b><br>failed: {safe.label(one.reason, 160)}<br>"
            f"{safe.label(sides.x.title)} as it was estimated"
            for one in failed
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        meta={"role": "failed"},
        cliponaxis=False,
        marker={"symbol": "x-thin-open", "size": 10, "line": {"width": 2}},
    )


def _shade(sides: _Sides, side: str, limit: float) -> dict[str, Any]:
    """What lies beyond a bound on one side, and a line at it."""
    axis, scale = (sides.x, sides.across) if side == "x" else (sides.y, sides.up)
    other = "y" if side == "x" else "x"
    more = axis.direction != "higher"
    edge = scale.high if more else scale.low
    if scale.log:  # far beyond what is shown, for whoever moves the chart
        edge *= 1e3 if more else 1e-3
    return {
        "type": "rect",
        f"{side}ref": side,
        f"{other}ref": "paper",
        f"{side}0": limit,
        f"{side}1": edge,
        f"{other}0": 0,
        f"{other}1": 1,
        "opacity": 0.12,
        "line": {"width": 1},
        "layer": "below",
        "name": "limit",
    }
