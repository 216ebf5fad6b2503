"""What a chart shows beside measured runs: estimates, failed attempts, the knee, bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ui import families, numbers, safe
from ui.axes import Sides


@dataclass(frozen=True)
class Expected:
    """A recipe that was not run yet, where it is thought to lie, and what that rests on."""

    recipe: str
    family: str
    x: float
    y: float
    low: float
    high: float
    basis: str


@dataclass(frozen=True)
class Failed:
    """An attempt that ended without a result, where its size was estimated to lie."""

    recipe: str
    x: float
    reason: str


def expected_dots(points: Sequence[Expected], sides: Sides, *, line: bool) -> list[go.Scatter]:
    """Hollow dots, and on request the front of them; both sides are better where lower."""
    front: list[Expected] = []
    for one in sorted(points, key=lambda each: (each.x, each.y)):
        if not front or one.y < front[-1].y:
            front.append(one)
    steps = go.Scatter(
        x=[one.x for one in front],
        y=[one.y for one in front],
        mode="lines",
        name="expected frontier",
        hoverinfo="skip",
        meta={"role": "expected-line"},
        line={"shape": "hv", "width": 1, "dash": "dot"},
    )
    dots = go.Scatter(
        x=[one.x for one in points],
        y=[one.y for one in points],
        mode="markers",
        name="expected",
        hovertext=[
            f"<b>{safe.label(one.recipe)}</b><br>not run yet; expected {sides.x.title.lower()} "
            f"{numbers.quantity(one.x, sides.x.unit)}<br>"
            f"{safe.label(sides.y.title)} {numbers.quantity(one.y, sides.y.unit)}"
            f"<br>  95 %: {numbers.interval(one.low, one.high, sides.y.unit)}"
            f"<br>from {safe.label(one.basis)}"
            for one in points
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        meta={"role": "expected"},
        marker={
            "color": [families.mark(one.family)[0] for one in points],
            "symbol": [f"{families.mark(one.family)[1]}-open" for one in points],
            "size": 9,
            "opacity": 0.75,
            "line": {"width": 1.2},
        },
    )
    return [steps, dots] if line else [dots]


def knee_mark(rows: pd.DataFrame, sides: Sides) -> go.Scatter:
    """A ring around the run where the front turns."""
    return go.Scatter(
        x=sides.across.place(rows["x"]),
        y=sides.up.place(rows["y"]),
        mode="markers+text",
        name="knee",
        text=["knee"],
        textposition="bottom left",
        textfont={"size": 11},
        hoverinfo="skip",
        meta={"role": "knee"},
        marker={"symbol": "diamond-open", "size": 20, "line": {"width": 1.5}},
    )


def crosses(failed: Sequence[Failed], sides: Sides) -> go.Scatter:
    """Attempts without a result, at the edge of the worse end."""
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


def shade(sides: Sides, side: str, limit: float) -> dict[str, Any]:
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
