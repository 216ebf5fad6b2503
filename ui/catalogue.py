"""Names of the page: axes, families, machines and methods in words."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from backend.service import Filter, Service
from ui import charts, numbers, safe
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
    colour, symbol = charts.mark(name)
    return {"name": name, "colour": colour, "symbol": symbol}


def family_order(name: str) -> tuple[int, str]:
    """Where a family stands in lists."""
    known = list(charts.FAMILIES)
    return (known.index(name) if name in known else len(known), name)


def hardware_name(service: Service, hardware_id: str) -> str:
    """A machine in words, from any run that was measured on it."""
    runs = service.runs(Filter(hardware=(hardware_id,)))
    if runs.empty:
        return hardware_id
    return machine(service, runs["run_id"].iloc[-1]) or hardware_id


def methods(service: Service) -> list[dict[str, Any]]:
    """Every method: what it says of itself beside what has been measured here."""
    runs = service.runs(metrics=("bpw_linear", "kld_mean", "top1_agree", "resident_bytes"))
    found = []
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
                "measured": [
                    {
                        "run_id": row["run_id"],
                        "recipe": safe.plain(row["recipe"]),
                        "size": numbers.quantity(row["resident_bytes"], "B"),
                        "kld": numbers.quantity(row["kld_mean"], "nats/token"),
                        "agree": numbers.quantity(row["top1_agree"], "%"),
                    }
                    for row in own.sort_values("resident_bytes").to_dict("records")[:8]
                ],
            }
        )
    found.sort(key=lambda one: family_order(one["family"]["name"]))
    return found


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
    elif one.get("low") is not None:
        reach = f"{one['low']:g} to {one['high']:g}"
    return {
        "name": one["name"],
        "default": str(one["default"]),
        "reach": reach,
        "help": one.get("help", ""),
    }


@lru_cache(maxsize=512)
def machine(service: Service, run_id: str) -> str:
    """The machine that a run was measured on, in words."""
    about = service.run(run_id).manifest.get("hardware", {})
    parts = [", ".join(str(one.get("name", one)) if isinstance(one, dict) else str(one)
                       for one in about.get("gpus") or [])]  # fmt: skip
    parts.append(str(about.get("cpu", "")))
    if cores := about.get("cores"):
        parts.append(f"{cores} cores")
    if memory := about.get("memory_gib"):
        parts.append(f"{memory:.0f} GiB")
    return safe.plain(" · ".join(part for part in parts if part), 160)
