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


@dataclass(frozen=True)
class Axis:
    """One side of the chart.

    Attributes:
        name: key of the metric.
        title: what it is called.
        unit: unit of the values.
        direction: lower, higher or none.
        log: whether it is logarithmic.
    """

    name: str
    title: str
    unit: str
    direction: str
    log: bool


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
    tied: set[str] | None = None,
) -> go.Figure:
    """The chart of every run with both readings, the frontier as a step line.

    Args:
        frame: rows of `Service.frontier`.
        x: what goes to the right.
        y: what goes up.
        floor: y below which differences mean nothing, drawn as a line.
        x_limit: a bound on x; what lies beyond is shaded.
        tied: what `ties` says of the frame, where it is known already.
    """
    sides = _Sides(x, y, _Scale.of(x, frame["x"], x_limit), _Scale.of(y, frame["y"], floor))
    figure = go.Figure(layout=_layout(sides))
    tied = ties(frame) if tied is None else tied
    groups = frame[frame["on_frontier"]].groupby(["model", "protocol", "hardware_id"], sort=True)
    for position, (_, rows) in enumerate(groups):
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
    if x_limit is not None and x_limit > 0:
        figure.add_shape(**_shade(sides, x_limit))
    return figure


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


def ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers between two ends: 1-2-5 on a logarithmic axis, even steps on a linear one."""
    if log:
        decades = math.log10(high / low)
        factors = (1, 2, 5) if decades <= 3 else (1,)
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        found = [f * 10.0**e for e in range(first, last + 1) for f in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) >= 3:
            return found
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 7)
    count = math.floor(high / step + 1e-9) - math.ceil(low / step - 1e-9)
    return [(math.ceil(low / step - 1e-9) + i) * step for i in range(count + 1)]


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
class _Scale:
    """Where values lie on an axis; on a logarithmic one nothing lies at the low end."""

    low: float
    high: float
    log: bool
    zero: float | None

    @classmethod
    def of(cls, axis: Axis, values: pd.Series, extra: float | None) -> _Scale:
        known = [float(value) for value in values] + ([] if extra is None else [extra])
        above = [value for value in known if value > 0]
        log = axis.log and bool(above)
        if not log:
            low, high = (min(known), max(known)) if known else (0.0, 1.0)
            pad = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
            return cls(low - pad, high + pad, False, None)
        low, high = min(above), max(above)
        if len(above) < len(known):  # some are zero: they get a place of their own below
            zero = low / max(3.0, (high / low) ** 0.12)
            return cls(zero / (high / zero) ** 0.07, high * (high / zero) ** 0.07, True, zero)
        pad = max(1.06, (high / low) ** 0.08)
        return cls(low / pad, high * pad, True, None)

    def place(self, values: pd.Series) -> list[float]:
        if not self.log:
            return [float(value) for value in values]
        return [float(value) if value > 0 else self.zero or self.low for value in values]

    def share(self, value: float) -> float:
        """How far along the axis a value lies, 0 to 1."""
        value = value if value > 0 or not self.log else self.low
        turn = math.log10 if self.log else float
        return (turn(value) - turn(self.low)) / (turn(self.high) - turn(self.low))

    def axis(self, unit: str) -> dict[str, Any]:
        start = self.low if self.zero is None else self.zero * 1.5
        at = ticks(start, self.high, self.log)
        texts = [_short(value, unit) for value in at]
        if self.zero is not None:
            at, texts = [self.zero, *at], ["0", *texts]
        ends = [self.low, self.high]
        return {
            "type": "log" if self.log else "linear",
            "range": [math.log10(end) for end in ends] if self.log else ends,
            "tickmode": "array",
            "tickvals": at,
            "ticktext": texts,
        }


def _short(value: float, unit: str) -> str:
    if unit == "B" or unit.startswith("B/"):
        amount, _, rest = numbers.quantity(value, "B").partition(" ")
        return f"{float(amount):g} {rest}"
    text = f"{value:.6g}" if abs(value) >= 1e-3 or value == 0 else numbers.number(value)
    if abs(value) < 1e-3 and value:
        exponent = math.floor(math.log10(abs(value)) + 1e-9)
        mantissa = round(value / 10**exponent)
        raised = numbers.number(10.0**exponent).split("·10")[-1] if exponent < -4 else "⁻⁴"
        text = f"{mantissa}·10{raised}" if mantissa != 1 else f"10{raised}"
    elif abs(value) >= 10_000:
        text = f"{value:,.0f}"
    return f"{text} %" if unit == "%" else f"{text}×" if unit == "×" else text


@dataclass(frozen=True)
class _Sides:
    """Both axes and where values lie on them."""

    x: Axis
    y: Axis
    across: _Scale
    up: _Scale


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


def _bars(points: Sequence[dict[str, Any]], side: str, scale: _Scale) -> dict[str, Any]:
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


def _shade(sides: _Sides, limit: float) -> dict[str, Any]:
    more = sides.x.direction != "higher"
    edge = sides.across.high if more else sides.across.low
    if sides.across.log:  # far beyond what is shown, for whoever moves the chart
        edge *= 1e3 if more else 1e-3
    return {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": limit,
        "x1": edge,
        "y0": 0,
        "y1": 1,
        "opacity": 0.12,
        "line": {"width": 0},
        "layer": "below",
        "name": "limit",
    }
