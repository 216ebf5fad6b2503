"""What several runs wrote to one stored prompt, side by side, as plain text."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from backend.errors import ParetoscopeError
from backend.service import Filter, Service
from ui import differences, numbers, safe
from ui.catalogue import family_mark

# Speed only as the ratio within one process: rates of two processes are not to be compared.
PANE_NUMBERS = ("resident_bytes", "kld_mean", "top1_agree", "decode_speedup")
NEARLY_TIED = 0.5  # logits between the dense model's first and second choice


def compare(service: Service, run_ids: list[str], position: int) -> dict[str, Any]:
    """Two to four runs beside the dense model, on one stored prompt.

    Raises:
        UnknownNameError: a run does not exist.
    """
    runs = [service.run(run_id) for run_id in run_ids[:4]]
    if not runs:
        return {"prompts": [], "texts": [], "position": 0, "prompt": "", "panes": []}
    names = prompts(runs[0])
    several = len({run.model["name"] for run in runs}) > 1
    position = min(max(position, 0), max(len(names) - 1, 0))
    panes = []
    for run in runs:
        place = next(
            (i for i, one in enumerate(run.generations)
             if names and one["prompt"] == runs[0].generations[position]["prompt"]), None
        )  # fmt: skip
        shown = None if place is None else writing(run, place)
        panes.append({"run_id": run.run_id, "recipe": safe.plain(run.recipe),
                      "model": safe.plain(run.model["name"], 100) if several else "",
                      "family": family_mark(run.family), "numbers": _pane_numbers(service, run),
                      **_here(service, run),
                      "spans": shown["spans"] if shown else [],
                      "remark": shown["remark"] if shown
                      else "This run was not asked this prompt."})  # fmt: skip
    first = writing(runs[0], position)
    dense = _dense_like(service, runs[0])
    if first and first["dense"] and runs[0].family != "dense":
        panes.insert(0, {"run_id": dense.run_id if dense else "", "recipe": "dense",
                         "model": panes[0]["model"],
                         "family": family_mark("dense"),
                         "numbers": _pane_numbers(service, dense) if dense else [],
                         "spans": [{"text": "".join(one["text"] for one in first["dense"]),
                                    "kind": "same"}],
                         "remark": "What the model writes uncompressed."})  # fmt: skip
    return {
        "prompts": names,
        "texts": [safe.plain(one.get("prompt_text", one["prompt"])) for one in runs[0].generations],
        "dense": family_mark("dense"),
        "position": position,
        "prompt": first["prompt"] if first else "",
        "panes": panes,
    }


def votes(service: Service) -> list[dict[str, Any]]:
    """Judged runs, the least divergence first, with how often each was told from the dense one."""
    runs = service.runs(metrics=("kld_mean",)).set_index("run_id")
    found = []
    for one in service.comparing.votes():
        if one["run_id"] not in runs.index:
            continue
        run = runs.loc[one["run_id"]]
        decided = one["right"] + one["wrong"]
        unsure = f", {one['unsure']} unsure" if one["unsure"] else ""
        found.append({
            "run_id": one["run_id"], "recipe": safe.plain(run["recipe"]),
            "family": family_mark(run["family"]), "order": float(run["kld_mean"]),
            "kld": numbers.quantity(run["kld_mean"], "nats/token"),
            "share": numbers.quantity(one["share"], "%"), "value": one["share"],
            "low": one["low"], "high": one["high"],
            "interval": numbers.interval(one["low"], one["high"], "%"),
            "votes": f"{one['right']} of {decided}{unsure}",
        })  # fmt: skip
    found.sort(key=lambda one: one["order"] if one["order"] == one["order"] else math.inf)
    return [{key: value for key, value in one.items() if key != "order"} for one in found]


def _here(service: Service, run: Any) -> dict[str, Any]:
    """Whether a run can write on this machine; otherwise who can in its place, or the cost."""
    if service.comparing.can_write(run):
        return {"live": True, "twin": "", "cost": ""}
    same = service.runs(Filter((run.model["name"],)))
    same = same[(same["recipe"] == run.recipe) & (same["status"] == "done")]
    twin = next((one for one in same["run_id"] if service.artefact_folder(one)), "")
    cost = ""
    with suppress(ParetoscopeError):
        found = service.estimate(run.recipe, run.model["name"])
        cost = "" if found is None else numbers.duration(found.seconds)
    return {"live": False, "twin": twin, "cost": cost}


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


def prompts(run: Any) -> list[str]:
    """Names of the prompts that a run continued."""
    return [safe.plain(one["prompt"], 80) for one in run.generations]


def _pane_numbers(service: Service, run: Any) -> list[dict[str, str]]:
    found = []
    for name in PANE_NUMBERS:
        one = run.reading(name)
        # The dense model's own speed-up is a control of the clock, not a speed-up.
        if one is not None and (name, run.recipe) != ("decode_speedup", "dense"):
            found.append({"name": name, "title": service.metric(name)["title"],
                          "text": numbers.quantity(one.value, one.unit),
                          "interval": "" if one.low == one.high
                          else numbers.interval(one.low, one.high, one.unit)})  # fmt: skip
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


def _dense_like(service: Service, run: Any) -> Any:
    chosen = Filter((run.model["name"],), (run.protocol,), (run.manifest["hardware_id"],),
                    ("dense",))  # fmt: skip
    found = service.runs(chosen)
    return None if found.empty else service.run(found["run_id"].iloc[0])
