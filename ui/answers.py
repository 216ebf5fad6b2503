"""What the page answers a budget with, in words: runs, the limit that binds, what changes."""

from __future__ import annotations

from typing import Any

from backend.console import HELD, limit_text, missed_text
from backend.errors import ParetoscopeError, UnknownNameError
from backend.service import Filter, Service
from ui import numbers, safe
from ui.catalogue import known_run, machine

SPEED = "decode_speedup"
SHOWN = ("resident_bytes", "kld_mean", "decode_tps", SPEED)


def answer(service: Service, budget: str, model: str, chosen: Filter) -> dict[str, Any]:
    """Up to three runs within a budget, or the nearest; or the sentence that refuses it."""
    try:
        found = service.advice.recommend(budget, model, chosen)
    except ParetoscopeError as error:
        # Where nothing is measured yet a search helps; what cannot be read it cannot search for.
        further = isinstance(error, UnknownNameError)
        return {"error": safe.plain(error, 600), "further": further}
    first = found.choices[0].candidate if found.choices else found.nearest
    missed = " and ".join(missed_text(*one) for one in found.missed)
    return {
        "error": "",
        "choices": [
            _candidate(service, one.candidate) | {"reason": one.reason} for one in found.choices
        ],
        "dense": None if found.dense is None else _candidate(service, found.dense),
        "binding": "" if found.binding is None else limit_text(found.binding),
        "changes": [
            _candidate(service, one.candidate) | {"reason": limit_text(one.limit, one.bound)}
            for one in found.changes
        ],
        "nearest": None
        if found.nearest is None
        else _candidate(service, found.nearest) | {"reason": f"It misses {missed}."},
        "origin": "" if first is None else _origin(service, first.run_id),
    }


def _candidate(service: Service, one: Any) -> dict[str, str]:
    shown = [name for name in SHOWN if (name, one.recipe) != (SPEED, "dense")]
    known = [(service.metric(name), one.values[name]) for name in shown if name in one.values]
    held = [f"{numbers.quantity(one.values[HELD].value, 'B')} in all"] if HELD in one.values else []
    told = [*held, *(_told(about, value) for about, value in known)]
    return {"run_id": one.run_id, "recipe": safe.plain(one.recipe, 300), "text": " · ".join(told)}


def _told(about: dict[str, Any], value: Any) -> str:
    span = "" if value.low == value.high else numbers.interval(value.low, value.high)
    said = numbers.quantity(value.value, about["unit"]) + (f" ({span})" if span else "")
    return f"{said} as fast as dense" if about["name"] == SPEED else said


def _origin(service: Service, run_id: str) -> str:
    run = known_run(service, run_id)
    if run is None:
        return ""
    return safe.plain(f"From runs on {machine(service, run_id)} · protocol {run.protocol}")
