"""Numbers as people read them: three digits, a unit, no false precision."""

from __future__ import annotations

import math

from backend.console import duration

NONE = "–"
_PREFIXES = ("", "k", "M", "G", "T")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def quantity(value: float | None, unit: str = "") -> str:
    """A value with its unit, such as `1.71 MB`, `0.0238 nats/token` or `1.05×`."""
    if value is None or not math.isfinite(value):
        return NONE
    if unit == "B" or unit.startswith("B/"):
        return _bytes(value, unit)
    if unit == "%":
        return f"{_fixed(value, 1)} %"
    if unit == "×":
        return f"{number(value)}×"
    if unit == "s" and abs(value) >= 90:
        return duration(value)
    return f"{number(value)} {unit}".rstrip()


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """Both ends of an interval, or nothing."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    first, last = quantity(low, unit), quantity(high, unit)
    ending = last.rpartition(" ")[2] if " " in last else ""
    if ending and first.endswith(f" {ending}"):
        first = first.removesuffix(f" {ending}")
    return f"{first} to {last}"


def number(value: float) -> str:
    """Three significant digits; thousands apart, very small ones as a power of ten."""
    if value == 0:
        return "0"
    size = float(f"{abs(value):.3g}")  # 0.9996 is written as 1 is
    if size >= 1000:
        digits = max(0, int(math.log10(size)) - 2)
        return f"{round(value, -digits):,.0f}"
    if size < 1e-4:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}·10{str(int(exponent)).translate(_RAISED)}"
    return _fixed(value, max(0, 2 - math.floor(math.log10(size))))


def _fixed(value: float, places: int) -> str:
    text = f"{value:.{places}f}"
    return text[1:] if text.startswith("-") and not float(text) else text


def _bytes(value: float, unit: str) -> str:
    size, step = abs(value), 0
    while size >= 999.5 and step < len(_PREFIXES) - 1:
        size, step = size / 1000, step + 1
    places = 0 if step == 0 else max(0, 2 - int(math.log10(max(size, 1))))
    sign = "-" if value < 0 else ""
    return f"{sign}{size:.{places}f} {_PREFIXES[step]}{unit}"
