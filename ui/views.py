"""What the page shows of runs, as plain values with every number already written out.

All text is plain text: the browser puts it in as text, never as markup.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from functools import lru_cache
from typing import Any

import pandas as pd

from backend.service import Filter, Service
from ui import charts, differences, numbers, safe

GROUPS = {
    "quality": "Distance from the dense model",
    "ability": "Abilities",
    "size": "Size",
    "speed": "Speed",
    "cache": "Long context",
    "writing": "What it writes",
    "lossless": "Proof of losslessness",
}
HEADLINES = ("kld_mean", "top1_agree", "ppl_ratio", "resident_bytes", "footprint_bytes",
             "decode_speedup")  # fmt: skip
PANE_NUMBERS = ("resident_bytes", "kld_mean", "top1_agree", "decode_tps")
TABLE = ("resident_bytes", "footprint_bytes", "kld_mean", "top1_agree", "decode_speedup")
NEARLY_TIED = 0.5  # logits between the dense model's first and second choice
DEFAULT_X, DEFAULT_Y = "resident_bytes", "kld_mean"


def axis(service: Service, name: str) -> charts.Axis:
    """A metric as a side of the chart.

    Raises:
        UnknownNameError: no metric of that name.
    """
    known = service.metric(name)
    return charts.Axis(*(known[key] for key in ("name", "title", "unit", "direction", "log")))


def start(service: Service, public: bool) -> dict[str, Any]:
    """What the page needs once: axes, filters, families, where links lead."""
    axes = [service.metric(name) for name in service.axes()["name"]]
    order = list(GROUPS)
    axes.sort(key=lambda one: (order.index(one["group"]), one["title"]))
    choices = service.choices()
    keys = ("name", "title", "unit", "help")
    space = os.environ.get("SPACE_ID", "")
    return {
        "axes": [{k: one[k] for k in keys} | {"group": GROUPS[one["group"]]} for one in axes],
        "x": DEFAULT_X,
        "y": DEFAULT_Y,
        "models": sorted(set(choices["model"])),
        "families": [family_mark(name) for name in sorted(set(choices["family"]))],
        "hardware": [
            {"id": one, "text": hardware_name(service, one)}
            for one in sorted(set(choices["hardware_id"]))
        ],
        "notice": safe.plain(service.notice),
        "public": public,
        "link": f"https://huggingface.co/spaces/{space}" if space else "",
    }


def family_mark(name: str) -> dict[str, str]:
    """A family with its colour and symbol."""
    colour, symbol = charts.mark(name)
    return {"name": name, "colour": colour, "symbol": symbol}


def figure(
    service: Service, x: str, y: str, chosen: Filter, x_limit: float | None = None
) -> dict[str, Any]:
    """The chart, the same as a table, and where it was measured."""
    across, up = axis(service, x), axis(service, y)
    frame = service.frontier(x, y, chosen)
    floor = _floor(service, frame) if y == "kld_mean" else None
    drawn = charts.pareto(frame, across, up, floor=floor, x_limit=x_limit)
    return {
        "figure": json.loads(drawn.to_json()),
        "points": len(frame),
        "table": table(service, frame, chosen),
        "origin": origin(service, frame),
        "summary": _summary(frame, across, up),
    }


def table(service: Service, frame: pd.DataFrame, chosen: Filter) -> dict[str, Any]:
    """The same runs as rows, the frontier first, failed attempts last with their reason."""
    known = [service.metric(name) for name in TABLE]
    runs = service.runs(chosen, TABLE, failed=True)
    standing = dict(zip(frame["run_id"], frame["on_frontier"], strict=True))
    tied = charts.ties(frame)
    rows = []
    for run in runs.to_dict("records"):
        run_id, status = run["run_id"], run["status"]
        state = "frontier" if standing.get(run_id) else "tie" if run_id in tied else ""
        rows.append(
            {
                "run_id": run_id if status in ("done", "broken") else "",
                "recipe": safe.plain(run["recipe"]),
                "family": run["family"],
                "model": safe.plain(run["model"], 100),
                "standing": state if status == "done" else status,
                "reason": safe.plain(run["reason"], 400),
                "cells": [numbers.quantity(run[one["name"]], one["unit"]) for one in known],
                "order": run[TABLE[0]] if run[TABLE[0]] == run[TABLE[0]] else math.inf,
            }
        )
    rows.sort(key=lambda row: (not row["run_id"], row["standing"] != "frontier", row["order"]))
    for row in rows:
        del row["order"]
    return {"columns": [one["title"] for one in known], "rows": rows}


def origin(service: Service, frame: pd.DataFrame) -> str:
    """Where and when the runs were measured, in one line."""
    if frame.empty:
        return ""
    names = [hardware_name(service, one) for one in sorted(set(frame["hardware_id"]))]
    days = sorted(str(one)[:10] for one in frame["created"])
    span = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    protocols = ", ".join(sorted(set(frame["protocol"])))
    return safe.plain(f"Measured on {'; '.join(names)} · {span} · protocol {protocols}")


def hardware_name(service: Service, hardware_id: str) -> str:
    """A machine in words, from any run that was measured on it."""
    runs = service.runs(Filter(hardware=(hardware_id,)))
    if runs.empty:
        return hardware_id
    return _hardware(service, runs["run_id"].iloc[-1]) or hardware_id


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
    return {
        "run_id": run.run_id,
        "recipe": safe.plain(run.recipe),
        "family": family_mark(run.family),
        "status": run.status,
        "created": run.created[:16].replace("T", " ") + " UTC",
        "seconds": numbers.duration(run.seconds),
        "model": safe.plain(run.model["name"], 200),
        "parameters": numbers.quantity(run.model.get("parameters"), "parameters"),
        "hardware": _hardware(service, run.run_id),
        "protocol": run.protocol,
        "tier": safe.plain(tier, 20),
        "commit": safe.plain(run.manifest.get("software", {}).get("commit", ""), 40),
        "command": _command(run.recipe, run.model["name"], tier),
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
        "beaten_by": _dominators(service, run, x, y),
        "writing": writing(run, 0),
        "prompts": prompts(run),
        "artefact": numbers.quantity(run.artefact.get("bytes"), "B") if folder else "",
    }


def prompts(run: Any) -> list[str]:
    """Names of the prompts that a run continued."""
    return [safe.plain(one["prompt"], 80) for one in run.generations]


def writing(run: Any, position: int) -> dict[str, Any] | None:
    """What a run wrote to a prompt beside what the dense model wrote."""
    if not 0 <= position < len(run.generations):
        return None
    one = run.generations[position]
    dense, text = safe.plain(one.get("dense_text", "")), safe.plain(one["text"])
    known = "dense_text" in one
    return {
        "prompt": safe.plain(one.get("prompt_text", one["prompt"])),
        "dense": [vars(span) for span in differences.spans(text, dense)] if known else [],
        "spans": [vars(span) for span in differences.spans(dense if known else text, text)],
        "remark": _remark(one, run.recipe),
    }


def compare(service: Service, run_ids: list[str], position: int) -> dict[str, Any]:
    """Two to four runs beside the dense model, on one stored prompt.

    Raises:
        UnknownNameError: a run does not exist.
    """
    runs = [service.run(run_id) for run_id in run_ids[:4]]
    if not runs:
        return {"prompts": [], "position": 0, "prompt": "", "panes": []}
    names = prompts(runs[0])
    position = min(max(position, 0), max(len(names) - 1, 0))
    panes = []
    for run in runs:
        place = next(
            (i for i, one in enumerate(run.generations)
             if names and one["prompt"] == runs[0].generations[position]["prompt"]), None
        )  # fmt: skip
        shown = None if place is None else writing(run, place)
        panes.append({"run_id": run.run_id, "recipe": safe.plain(run.recipe),
                      "family": family_mark(run.family), "numbers": _pane_numbers(service, run),
                      "spans": shown["spans"] if shown else [],
                      "remark": shown["remark"] if shown
                      else "This run was not asked this prompt."})  # fmt: skip
    first = writing(runs[0], position)
    dense = _dense_like(service, runs[0])
    if first and first["dense"] and runs[0].family != "dense":
        panes.insert(0, {"run_id": dense.run_id if dense else "", "recipe": "dense",
                         "family": family_mark("dense"),
                         "numbers": _pane_numbers(service, dense) if dense else [],
                         "spans": [{"text": "".join(one["text"] for one in first["dense"]),
                                    "kind": "same"}],
                         "remark": "What the model writes uncompressed."})  # fmt: skip
    return {
        "prompts": names,
        "position": position,
        "prompt": first["prompt"] if first else "",
        "panes": panes,
    }


def methods(service: Service) -> list[dict[str, Any]]:
    """Every method: what it says of itself beside what has been measured here."""
    runs = service.runs(metrics=("bpw_linear", "kld_mean", "top1_agree", "resident_bytes"))
    found = []
    for about in service.methods():
        key = about["key"]
        own = runs[[recipe.split("@")[0].split("(")[0] == key and " + " not in recipe
                    for recipe in runs["recipe"]]]  # fmt: skip
        found.append(
            {name: about[name] for name in ("key", "summary", "paper", "claim", "limits", "stage")}
            | {
                "text": " ".join(about["text"].split("\n\n", 1)[-1].split())
                if "\n\n" in about["text"]
                else "",
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
    return found


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


def _reading(service: Service, one: Any) -> dict[str, Any]:
    try:
        known = service.metric(one.name)
    except Exception:  # noqa: BLE001 - a result from another version may know other names
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
    }


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


def _pane_numbers(service: Service, run: Any) -> list[dict[str, str]]:
    found = []
    for name in PANE_NUMBERS:
        one = run.reading(name)
        if one is not None:
            title = service.metric(name)["title"]
            found.append({"title": title, "text": numbers.quantity(one.value, one.unit)})
    return found


def _remark(one: dict[str, Any], recipe: str) -> str:
    index, gap = one.get("first_divergence"), one.get("gap")
    if recipe == "dense":
        return "This is the dense model."
    if index is None:
        return f"Token for token what the dense model writes, all {len(one['tokens'])} of them."
    told = f"Parts from the dense model at token {index + 1}."
    if gap is None:
        return told
    lead = f"The dense model preferred its own choice there by {numbers.number(gap)} logits"
    return f"{told} {lead}" + (": nearly a tie." if gap < NEARLY_TIED else ".")


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
                f"{about.title} {numbers.quantity(value, about.unit)}" for _, about, value in leads
            )
            found.append(
                {
                    "run_id": rival["run_id"],
                    "recipe": safe.plain(rival["recipe"]),
                    "text": told,
                }
            )
    return found[:4]


def _dense_like(service: Service, run: Any) -> Any:
    chosen = Filter((run.model["name"],), (run.protocol,), (run.manifest["hardware_id"],),
                    ("dense",))  # fmt: skip
    found = service.runs(chosen)
    return None if found.empty else service.run(found["run_id"].iloc[0])


def _floor(service: Service, frame: pd.DataFrame) -> float | None:
    if len(set(zip(frame["model"], frame["protocol"], strict=True))) != 1:
        return None
    run = service.run(frame["run_id"].iloc[0])
    found = run.reading("kld_floor")
    return None if found is None else found.value


def _summary(frame: pd.DataFrame, x: charts.Axis, y: charts.Axis) -> str:
    count = int(frame["on_frontier"].sum())
    return (
        f"{len(frame)} runs, {count} on the frontier of "
        f"{x.title.lower()} against {y.title.lower() if y.title[:2] != 'KL' else y.title}."
    )


def _command(recipe: str, model: str, tier: str) -> str:
    quoted = safe.plain(recipe).replace('"', "")
    told = "" if model == "default" else f' --model "{safe.plain(model, 200)}"'
    effort = "" if tier == "quick" else f" --tier {safe.plain(tier, 20)}"
    return f'python -m backend run "{quoted}"{told}{effort}'


@lru_cache(maxsize=512)
def _hardware(service: Service, run_id: str) -> str:
    about = service.run(run_id).manifest.get("hardware", {})
    parts = [", ".join(str(one.get("name", one)) if isinstance(one, dict) else str(one)
                       for one in about.get("gpus") or [])]  # fmt: skip
    parts.append(str(about.get("cpu", "")))
    if cores := about.get("cores"):
        parts.append(f"{cores} cores")
    if memory := about.get("memory_gib"):
        parts.append(f"{memory:.0f} GiB")
    return safe.plain(" · ".join(part for part in parts if part), 160)
