"""The card of one run, as plain values with every number already written out."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from typing import Any

from backend.errors import UnknownNameError
from backend.service import Filter, Service
from ui import numbers, safe
from ui.catalogue import GROUPS, axis, family_mark, machine
from ui.comparison import prompts, writing

HEADLINES = ("kld_mean", "top1_agree", "ppl_ratio", "resident_bytes", "footprint_bytes",
             "decode_speedup")  # fmt: skip


def card(service: Service, run_id: str, x: str, y: str) -> dict[str, Any]:
    """One run whole, as its card shows it.

    Raises:
        UnknownNameError: no such run.
    """
    run = service.run(run_id)
    readings = [_reading(service, one) for one in run.readings]
    by_name = {one["name"]: one for one in readings}
    tier = run.manifest.get("evaluation", {}).get("tier", "quick")
    folder = service.artefact_folder(run.run_id)
    wish = _wish(run.model)
    return {
        "run_id": run.run_id,
        "recipe": safe.plain(run.recipe),
        "family": family_mark(run.family),
        "status": run.status,
        "created": run.created[:16].replace("T", " ") + " UTC",
        "seconds": numbers.duration(run.seconds),
        "model": safe.plain(run.model["name"], 200),
        "parameters": numbers.quantity(run.model.get("parameters"), "parameters"),
        "hardware": machine(service, run.run_id),
        "protocol": run.protocol,
        "tier": safe.plain(tier, 20),
        "commit": safe.plain(run.manifest.get("software", {}).get("commit", ""), 40),
        "wish": wish,
        "command": _command(run.recipe, wish, tier),
        "headlines": [by_name[name] for name in HEADLINES if name in by_name],
        "groups": [
            {"title": title, "rows": [one for one in readings if one["group"] == group]}
            for group, title in GROUPS.items()
            if any(one["group"] == group for one in readings)
        ],
        "layers": [_layer(one) for one in run.layers],
        "bytes": _bytes(run),
        "notes": [safe.plain(note, 400) for note in run.notes],
        "stages": [
            {
                "method": safe.plain(stage["method"], 60),
                "settings": safe.plain(
                    ", ".join(f"{k} {v}" for k, v in stage["settings"].items()), 400
                ),
            }
            for stage in run.stages
        ],
        "graded": _graded(service, run.run_id),
        "beaten_by": _dominators(service, run, x, y),
        "writing": writing(run, 0),
        "prompts": prompts(run),
        "artefact": numbers.quantity(run.artefact.get("bytes"), "B") if folder else "",
    }


def _reading(service: Service, one: Any) -> dict[str, Any]:
    try:
        known = service.metric(one.name)
    except UnknownNameError:  # a result of another version may know other names
        known = {"title": one.name, "help": "", "group": "quality"}
    span = numbers.interval(one.low, one.high, one.unit)
    return {
        "name": one.name,
        "title": safe.plain(known["title"], 100),
        "help": known["help"],
        "group": known["group"],
        "text": numbers.quantity(one.value, safe.plain(one.unit, 30)),
        "interval": span,
        "kind": one.kind,
        "note": safe.plain(one.note, 300),
        "noisy": "noisy_host" in one.note,
    }


def _graded(service: Service, run_id: str) -> list[dict[str, str]]:
    """What was expected before the run beside what came of it."""
    found = []
    for row in service.advice.grades([run_id]).to_dict("records"):
        known = service.metric(f"predicted_{row['quantity']}")
        error, unit = row["error"], known["unit"]
        found.append(
            {
                "title": known["title"],
                "expected": numbers.quantity(row["expected"], unit),
                "interval": numbers.interval(row["low"], row["high"], unit),
                "measured": numbers.quantity(row["measured"], unit),
                "error": f"{100 * error:+.0f} %" if math.isfinite(error) else "",
            }
        )
    return found


def _layer(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": safe.plain(one["name"], 120),
        "role": safe.plain(one.get("role", ""), 40),
        "format": safe.plain(one["format"], 60),
        "bits": one["bits"],
        "text": f"{one['bits']:.2f} bits, {numbers.quantity(one['bytes'], 'B')}",
    }


def _bytes(run: Any) -> list[dict[str, Any]]:
    parts: Counter[str] = Counter()
    for layer in run.layers:
        for path, size in (layer.get("parts") or {"weights": layer["bytes"]}).items():
            parts[_part(path)] += size
    whole = run.reading("resident_bytes")
    if whole is not None and whole.value and whole.value > sum(parts.values()):
        parts["embedding, head, norms"] = int(whole.value - sum(parts.values()))
    total = sum(parts.values()) or 1
    return [
        {
            "part": safe.plain(name, 60),
            "share": round(100 * size / total, 2),
            "text": numbers.quantity(size, "B"),
        }
        for name, size in parts.most_common()
    ]


def _part(path: str) -> str:
    """What bytes are for, of a path such as `fine/codes/plane4`."""
    names = [one for one in path.split("/") if one != "values" and not one.startswith("plane")]
    return names[-1] if names else "weights"


def _dominators(service: Service, run: Any, x: str, y: str) -> list[dict[str, Any]]:
    known = Filter((run.model["name"],), (run.protocol,), (run.manifest["hardware_id"],))
    frame = service.frontier(x, y, known)
    own = frame[frame["run_id"] == run.run_id]
    if own.empty or own["on_frontier"].iloc[0]:
        return []
    across, up, point = axis(service, x), axis(service, y), own.iloc[0]
    found = []
    for rival in frame[frame["on_frontier"]].to_dict("records"):
        leads = []
        for side, about in (("x", across), ("y", up)):
            sign = -1.0 if about.direction == "higher" else 1.0
            leads.append((sign * (point[side] - rival[side]), about, rival[side]))
        if all(lead >= 0 for lead, _, _ in leads) and any(lead > 0 for lead, _, _ in leads):
            told = ", ".join(
                f"{about.title} {numbers.quantity(value, about.unit)}{by_how_much(value, own)}"
                for (_, about, value), own in zip(leads, (point["x"], point["y"]), strict=True)
            )
            found.append(
                {
                    "run_id": rival["run_id"],
                    "recipe": safe.plain(rival["recipe"]),
                    "text": told,
                }
            )
    return found[:4]


def by_how_much(value: float, own: float) -> str:
    """How one value stands to another, such as ` (26 % less)` or ` (3.1 times as much)`."""
    if value == own:
        return " (the same)"
    if value <= 0 or own <= 0:
        return ""
    more, factor = value > own, max(value, own) / min(value, own)
    if factor < 2:
        share = 100 * abs(value - own) / own
        return f" ({numbers.number(share)} % {'more' if more else 'less'})"
    return f" ({numbers.number(factor)} times {'as much' if more else 'less'})"


def _wish(model: dict[str, Any]) -> str:
    """What to write to have the model of a run: its name, with a revision, or its folder."""
    name, place = safe.plain(model["name"], 200), safe.plain(model.get("source", ""), 300)
    if name == "default" or place in ("", "hub"):
        revision = safe.plain(model.get("revision", ""), 100)
        return f"{name}@{revision}" if revision and name != "default" else name
    return place


def _command(recipe: str, model: str, tier: str) -> str:
    told = "" if model == "default" else f" --model {_quoted(model)}"
    effort = "" if tier == "quick" else f" --tier {safe.plain(tier, 20)}"
    return f"python -m backend run {_quoted(safe.plain(recipe))}{told}{effort}"


def _quoted(text: str) -> str:
    """Text of unknown origin as one word of a shell, in which nothing is run."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'
