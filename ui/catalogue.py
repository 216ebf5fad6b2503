"""Names of the page: axes, families, machines and methods in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from backend.errors import UnknownNameError
from backend.service import Run, Service
from ui import families, numbers, safe
from ui.axes import Axis

GROUPS = {
    "quality": "Distance from the dense model",
    "ability": "Abilities",
    "size": "Size",
    "speed": "Speed",
    "cache": "Long context",
    "writing": "What it writes",
    "lossless": "Proof of losslessness",
}


def axis(service: Service, name: str) -> Axis:
    """A metric as a side of the chart.

    Raises:
        UnknownNameError: no metric of that name.
    """
    known = service.metric(name)
    return Axis(*(known[key] for key in ("name", "title", "unit", "direction", "log")))


def family_mark(name: str) -> dict[str, str]:
    """A family with its colour and symbol."""
    colour, symbol = families.mark(name)
    return {"name": name, "colour": colour, "symbol": symbol}


def family_order(name: str) -> tuple[int, str]:
    """Where a family stands in lists."""
    known = list(families.FAMILIES)
    return (known.index(name) if name in known else len(known), name)


def hardware_name(service: Service, hardware_id: str) -> str:
    """A machine in words, from any run that was measured on it."""
    choices = service.choices()
    newest = choices["newest"][choices["hardware_id"] == hardware_id]
    return machine(service, str(newest.iloc[-1])) or hardware_id if len(newest) else hardware_id


def methods(service: Service) -> list[dict[str, Any]]:
    """Every method: what it says of itself beside what has been measured here."""
    runs = service.runs(metrics=("bpw_linear", "kld_mean", "top1_agree", "resident_bytes"))
    found = []
    front = _embedded_front(service)
    for about in service.methods():
        key = about["key"]
        own = runs.iloc[
            [at for at, recipe in enumerate(runs["recipe"]) if only_method(recipe) == key]
        ]
        found.append(
            {name: about[name] for name in ("key", "summary", "paper", "claim", "limits", "stage")}
            | {
                "text": _idea(about["text"]),
                "family": family_mark(about["family"]),
                "settings": [_setting(one) for one in about["settings"]],
                "chart": _small_chart(own, front),
                "measured": [
                    {
                        "run_id": row["run_id"],
                        "model": safe.plain(row["model"], 60) if own["model"].nunique() > 1 else "",
                        "recipe": safe.plain(row["recipe"]),
                        "size": numbers.quantity(row["resident_bytes"], "B"),
                        "kld": numbers.quantity(row["kld_mean"]),
                        "agree": numbers.quantity(row["top1_agree"], "%"),
                    }
                    for row in own.sort_values("resident_bytes").to_dict("records")[:8]
                ],
            }
        )
    found.sort(key=lambda one: family_order(one["family"]["name"]))
    return found


def _embedded_front(service: Service) -> pd.DataFrame:
    """The frontier of the embedded model, of the protocol and machine with the most runs."""
    whole = service.frontier()
    whole = whole[whole["model"] == "default"]
    groups = [rows for _, rows in whole.groupby(["protocol", "hardware_id"])]
    alike = max(groups, key=len) if groups else whole
    return alike[alike["on_frontier"]]


def _small_chart(own: pd.DataFrame, front: pd.DataFrame) -> dict[str, Any] | None:
    """A method's runs of the embedded model beside the frontier of all, in hundredths of a box.

    Size goes to the right and divergence up, both logarithmic, as on the chart.
    """
    own = own[(own["model"] == "default") & (own["kld_mean"] >= 0)]
    for side in ("protocol", "hardware_id"):  # others stand on frontiers of their own
        own = own[own[side].isin(front[side])]
    if own.empty or front.empty:
        return None
    least = max(1e-5, float(front[front["y"] > 0]["y"].min()) if (front["y"] > 0).any() else 1e-5)
    spots = [
        (row["run_id"], row["recipe"], row["resident_bytes"], max(row["kld_mean"], least))
        for row in own.to_dict("records")
    ]
    line = sorted((row["x"], max(row["y"], least)) for row in front.to_dict("records"))
    across = _Log.of([*(one[2] for one in spots), *(x for x, _ in line)])
    up = _Log.of([*(one[3] for one in spots), *(y for _, y in line)])
    return {
        "front": [[across.at(x), 100 - up.at(y)] for x, y in line],
        "spots": [
            {"run_id": run, "recipe": safe.plain(recipe), "x": across.at(x), "y": 100 - up.at(y)}
            for run, recipe, x, y in spots
        ],
    }


@dataclass(frozen=True)
class _Log:
    """A logarithmic side of a small chart."""

    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> _Log:
        """A side that holds all values."""
        return cls(math.log(min(values)), math.log(max(values)))

    def at(self, value: float) -> float:
        """Place of a value, 4 to 96."""
        span = (self.high - self.low) or 1.0
        return round(4 + 92 * (math.log(value) - self.low) / span, 1)


def only_method(recipe: str) -> str:
    """The method of a recipe of one stage, or nothing."""
    return "" if " + " in recipe else recipe.split("@")[0].split("(")[0]


def _idea(text: str) -> str:
    """What a method's text says after its first line, without the marks of its source."""
    return " ".join(text.partition("\n\n")[2].replace("`", "").split())


def _setting(one: dict[str, Any]) -> dict[str, str]:
    reach = ""
    if one.get("choices"):
        reach = ", ".join(str(choice) for choice in one["choices"])
    elif one.get("recipe"):
        reach = "a recipe"
    elif one.get("low") is not None:
        reach = f"{one['low']:g} to {one['high']:g}"
    return {
        "name": one["name"],
        "default": str(one["default"]),
        "reach": reach,
        "help": one.get("help", ""),
    }


def known_run(service: Service, run_id: str) -> Run | None:
    """One run whole; None where its file is gone while the index still has it."""
    try:
        return service.run(run_id)
    except UnknownNameError:
        return None


@lru_cache(maxsize=512)
def machine(service: Service, run_id: str) -> str:
    """The machine that a run was measured on, in words."""
    run = known_run(service, run_id)
    about = {} if run is None else run.manifest.get("hardware", {})
    parts = [", ".join(str(one.get("name", one)) if isinstance(one, dict) else str(one)
                       for one in about.get("gpus") or [])]  # fmt: skip
    parts.append(str(about.get("cpu", "")))
    if cores := about.get("cores"):
        parts.append(f"{cores} cores")
    if memory := about.get("memory_gib"):
        parts.append(f"{memory:.0f} GiB")
    return safe.plain(" · ".join(part for part in parts if part), 160)
