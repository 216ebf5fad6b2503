"""The sides of a chart: what a metric's axis is called, where values lie on it, and its ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ui import numbers


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


@dataclass(frozen=True)
class Scale:
    """Where values lie on an axis; on a logarithmic one nothing lies at the low end."""

    low: float
    high: float
    log: bool
    zero: float | None

    @classmethod
    def of(cls, axis: Axis, values: pd.Series, extra: Iterable[float | None] = ()) -> Scale:
        """A scale that holds all values and some more, with some room around them."""
        known = [float(value) for value in values] + [one for one in extra if one is not None]
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
        """Values as they are drawn: on a logarithmic axis zero gets a place of its own."""
        if not self.log:
            return [float(value) for value in values]
        return [float(value) if value > 0 else self.zero or self.low for value in values]

    def share(self, value: float) -> float:
        """How far along the axis a value lies, 0 to 1."""
        value = value if value > 0 or not self.log else self.low
        turn = math.log10 if self.log else float
        return (turn(value) - turn(self.low)) / (turn(self.high) - turn(self.low))

    def axis(self, unit: str) -> dict[str, Any]:
        """Plotly's settings: kind, ends and ticks."""
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


@dataclass(frozen=True)
class Sides:
    """Both axes and where values lie on them."""

    x: Axis
    y: Axis
    across: Scale
    up: Scale


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
