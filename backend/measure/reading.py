"""A reading is one measured number, with the catalogue that says what it means.

Standard library only: the web process reads what the measuring process wrote. No number is taken
here.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from backend.errors import UnknownNameError
from backend.measure.catalogue import FAMILIES, METRICS, PROTOCOL, Direction, Metric, metric

__all__ = [
    "FAMILIES", "METRICS", "PROTOCOL", "Kind", "Metric", "Reading", "is_axis", "known_metric",
    "metric", "take",
]  # fmt: skip

Kind = Literal["measured", "counted", "estimated"]


@dataclass(frozen=True)
class Reading:
    """One number with its interval and where it comes from.

    Attributes:
        name: key in the catalogue.
        value: a finite number; what could not be had is left out instead.
        low: lower end of the 95 % interval, if there is one.
        high: upper end.
        unit: unit of the three numbers.
        direction: which way is better.
        kind: measured, counted or estimated.
        samples: what the number was taken over: tokens, items, rounds, files.
        note: what a reader must know to trust it.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    direction: Direction = "none"
    kind: Kind = "measured"
    samples: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a number that is none."""
        for field in ("value", "low", "high"):
            number = getattr(self, field)
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"The {field} of {self.name!r} is {number}; a reading that could not be "
                    "taken is left out, not stored."
                )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Reading:
        """Return the reading `to_json` wrote; raise ValueError for anything else."""
        known = cls.__dataclass_fields__
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise ValueError(f"A reading has no field {unknown[0]!r}; it has {', '.join(known)}.")
        if not isinstance(fields.get("name"), str):
            raise ValueError("A reading needs a name.")
        numbers = [fields.get("value"), fields.get("low"), fields.get("high")]
        for number, needed in zip(numbers, (True, False, False), strict=True):
            plain = isinstance(number, int | float) and not isinstance(number, bool)
            if not plain and (needed or number is not None):
                raise ValueError(f"The reading {fields['name']!r} holds {number!r}, no number.")
        return cls(**fields)


def take(
    name: str,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    kind: Kind = "measured",
    samples: int = 0,
    note: str = "",
) -> list[Reading]:
    """Return the reading in a list, or an empty list where there is no finite value.

    Unit and direction come from the catalogue; an end of the interval that is not finite is
    left out.
    """
    if value is None or not math.isfinite(value):
        return []
    about = metric(name)
    ends = [float(end) if end is not None and math.isfinite(end) else None for end in (low, high)]
    return [
        Reading(
            name,
            float(value),
            ends[0],
            ends[1],
            about.unit,
            about.direction,
            kind,
            int(samples),
            note,
        )
    ]


def known_metric(name: str) -> Metric:
    """What a name that somebody typed means.

    Raises:
        UnknownNameError: no metric of that name; says the nearest.
    """
    try:
        return metric(name)
    except KeyError as error:
        raise UnknownNameError(str(error.args[0])) from None


def is_axis(name: str) -> bool:
    """Whether a reading of this name can be an axis of a chart."""
    try:
        return metric(name).axis
    except KeyError:
        return False
