"""What the form shows: methods to choose from, a recipe being built, and what runs will take."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import product
from typing import Any

from backend.errors import ParetoscopeError
from backend.limits import Limits
from backend.service import Service
from ui import numbers, safe
from ui.catalogue import family_mark, family_order, only_method

MOST = 120  # recipes that one look ahead tells of
TIERS = (("Glance", "smoke"), ("Standard", "quick"), ("Thorough", "full"))


def choices(service: Service, limits: Limits) -> dict[str, Any]:
    """What the form offers before anything is chosen."""
    all_methods = service.methods()
    families = sorted({one["family"] for one in all_methods}, key=family_order)
    groups = [
        {
            "family": family_mark(family),
            "methods": [
                {"key": one["key"], "summary": one["summary"]}
                for one in all_methods
                if one["family"] == family
            ],
        }
        for family in families
    ]
    return {
        "groups": groups,
        "first": _first(service),
        "tiers": [{"name": name, "key": key} for name, key in TIERS],
        "public": limits.public,
        "models": sorted(set(service.choices()["model"])),
    }


def composition(service: Service, recipe: str | dict[str, Any]) -> dict[str, Any]:
    """A recipe, short or long, as the builder shows it; or the sentence that refuses it."""
    try:
        found = asdict(service.advice.compose(recipe))
    except ParetoscopeError as error:
        return {"error": safe.plain(error, 600)}
    for stage in found["stages"]:
        stage["family"] = family_mark(stage["family"])
    return found | {"error": ""}


def look_ahead(service: Service, wish: dict[str, Any]) -> dict[str, Any]:
    """What the runs of a wish will take, one row each, and what cannot be.

    Args:
        service: whom to ask.
        wish: model, recipes and budgets; a budget is a text such as `3 bits` or `6 GB`.
    """
    model = str(wish.get("model") or "default")
    wanted = list(product(wish.get("recipes") or [], wish.get("budgets") or [""]))[:MOST]
    rows: dict[str, dict[str, Any]] = {}
    refused: dict[str, list[str]] = {}  # recipes by reason, each told once
    try:
        service.estimate("dense", model)
    except ParetoscopeError as error:  # which no recipe is to blame for
        wanted, refused[safe.plain(error, 400)] = [], ["Model"]
    for recipe, budget in wanted:
        try:
            row = _row(service, str(recipe), str(budget), model)
        except ParetoscopeError as error:
            refused.setdefault(safe.plain(error, 400), []).append(safe.plain(recipe, 200))
            continue
        rows.setdefault(row["recipe"], row)
    found = list(rows.values())
    named = service.advice.named(model) if found else ""
    measured = named in set(service.choices()["model"])
    known = [one for one in found if one["seconds"] is not None]
    return {
        "rows": found,
        "refused": [
            {"recipe": ", ".join(dict.fromkeys(recipes)), "reason": reason}
            for reason, recipes in refused.items()
        ],
        "lacking": next((one["lacking"] for one in known if one["lacking"]), ""),
        "jobs": len(found),
        "size": _span([one["bytes"] for one in known], "B"),
        "dense": numbers.quantity(known[0]["dense_bytes"], "B") if known else "",
        "peak": numbers.quantity(max(one["peak_bytes"] for one in known), "B") if known else "",
        "time": numbers.duration(sum(one["seconds"] for one in known)) if known else "",
        "quality": _span([one["kld"] for one in known if one["kld"] is not None], "nats/token"),
        "basis": known[0]["basis"] if known else "",
        "model": named if measured else model,
        "measured": measured,
        "fetch": bool(found) and not known,
    }


def _row(service: Service, recipe: str, budget: str, model: str) -> dict[str, Any]:
    miss, limits = "", {}
    if budget:
        fitted = service.advice.fit(recipe, budget, model)
        if fitted is not None:
            recipe, limits = fitted.recipe, fitted.budget
            if fitted.missing:
                miss = f"{numbers.quantity(fitted.missing, 'B')} over the budget at its least"
            elif fitted.strange:
                miss = f"expected {numbers.number(fitted.strange)} nats beyond the bound"
    composed = service.advice.compose(recipe)
    found = service.estimate(recipe, model)
    row = {
        "recipe": composed.text,
        "family": family_mark(composed.family),
        "budget": limits,
        "miss": miss,
        "seconds": None,
        "bytes": None,
        "kld": None,
    }
    if found is None:
        return row
    quality = found.quality
    return row | {
        "seconds": found.seconds,
        "bytes": found.resident_bytes,
        "dense_bytes": found.dense_bytes,
        "peak_bytes": found.peak_bytes,
        "basis": found.basis,
        "lacking": safe.plain(found.lacking(service.home), 400),
        "size": numbers.quantity(found.resident_bytes, "B"),
        "how": "counted" if found.exact else "estimated",
        "kld": None if quality is None else quality.value,
        "quality": "–" if quality is None else numbers.quantity(quality.value, "nats/token"),
        "interval": "" if quality is None else numbers.interval(quality.low, quality.high),
        "time": numbers.duration(found.seconds),
    }


def _first(service: Service) -> str:
    """The method that stands most often on the frontier alone, to begin with."""
    keys = [one["key"] for one in service.methods()]
    front = service.frontier()
    alone = map(only_method, front[front["on_frontier"]]["recipe"])
    counted = Counter(key for key in alone if key in keys)
    return counted.most_common(1)[0][0] if counted else keys[0]


def _span(values: list[float], unit: str) -> str:
    if not values:
        return ""
    return (
        numbers.quantity(min(values), unit)
        if min(values) == max(values)
        else numbers.interval(min(values), max(values), unit)
    )
