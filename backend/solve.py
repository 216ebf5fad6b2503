"""Searches for the recipe that answers a budget: few candidates, judged on more and more text.

Candidates come from the catalogue and are ordered by what the known runs let expect. Each rung
judges the survivors of the last on more text and keeps a third; it ends early when the best can
be told from the rest. Every evaluation is a normal run that stays in the store, so that asking
again, or for another budget, begins where this search ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import methods, search
from backend.budget import Budget
from backend.errors import ModelError, OutOfReachError, ParetoscopeError
from backend.measure.recommend import Recommendation
from backend.methods.base import CacheMethod, DecodeMethod, LayerMethod, Leveled, Stage
from backend.recipes import Recipe
from backend.store.results import Filter

if TYPE_CHECKING:
    from backend.service import Service

RUNGS = ("smoke", "quick")
WIDTH = 8  # candidates of the first rung
ALIKE = 3  # of one method, at most
SHARE = 3  # one of so many goes on to the next rung
DIVIDED = 0.7  # what an allocator usually leaves of the divergence
CACHE_BITS = (8.0, 5.0, 4.0)

Watch = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """A run that the search made or found.

    Attributes:
        recipe: in the short form.
        tier: how much text judged it.
        run_id: of the run.
        kld: its divergence; None where the run failed.
        seconds: that it took; 0 where it was known before.
    """

    recipe: str
    tier: str
    run_id: str
    kld: float | None
    seconds: float


@dataclass(frozen=True)
class Solution:
    """What a search found.

    Attributes:
        answer: choices among all runs of the last rung's protocol and machine, the binding
            limit, and what would change them.
        evaluations: every run that was looked at, in order.
        seconds: that new runs took together.
        protocol: by which the runs of the answer were measured.
        hardware_id: of the machine that the runs of the answer were measured on.
    """

    answer: Recommendation
    evaluations: tuple[Evaluation, ...]
    seconds: float
    protocol: str
    hardware_id: str


def solve(
    service: Service,
    budget: str,
    model: str = "default",
    *,
    width: int = WIDTH,
    watch: Watch = lambda _: None,
    owner: str = "",
) -> Solution:
    """Explore recipes within a budget and answer with the best.

    Raises:
        ParetoscopeError: budget or model cannot be.
        OutOfReachError: nothing in the catalogue fits; names what comes nearest.
    """
    limits = Budget.parse(budget)
    timed = bool(limits.decode_speedup or limits.decode_tps)
    wanted = candidates(service, limits, budget, model)[:width]
    evaluations: list[Evaluation] = []
    for place, tier in enumerate(RUNGS):
        watch(f"{len(wanted)} candidates on tier {tier}")
        speed = "sweep" if timed or tier == RUNGS[-1] else ""
        made = list(_evaluate(service, wanted, model, tier=tier, speed=speed, owner=owner))
        evaluations += made
        for one in made:
            watch(f"{one.recipe}: " + ("failed" if one.kld is None else f"{one.kld:.4g} nats"))
        if place + 1 < len(RUNGS):
            wanted = _survivors(service, made)
    last = next(one for one in reversed(evaluations) if one.kld is not None)
    run = service.run(last.run_id)
    alike = run.protocol, str(run.manifest["hardware_id"])
    answer = service.advice.recommend(budget, model, Filter((), alike[:1], alike[1:]))
    return Solution(answer, tuple(evaluations), sum(one.seconds for one in evaluations), *alike)


def candidates(service: Service, limits: Budget, budget: str, model: str) -> list[str]:
    """Recipes turned to the budget, the most promising first.

    Raises:
        ModelError: the model cannot be.
        OutOfReachError: none fits; names the one that misses by least.
    """
    service.advice.named(model)
    found: list[tuple[float, str, str]] = []
    nearest: tuple[int, str] | None = None
    for text in _recipes(limits):
        try:
            fitted = service.advice.fit(text, budget, model)
            if fitted is None:
                raise OutOfReachError(f"The files of {model} are not here yet; run one recipe.")
            if fitted.missing:
                nearest = min(filter(None, [nearest, (fitted.missing, fitted.recipe)]))
                continue
            recipe = Recipe.parse(fitted.recipe)
            quality = service.advice.quality(recipe, model)
        except (OutOfReachError, ModelError):  # not in so little, or not this type of model
            continue
        expected = 1.0 if quality is None else quality.value
        if recipe.division is not None and quality is not None and "measured" not in quality.basis:
            expected *= DIVIDED
        found.append((expected, recipe.text(), recipe.stages[0].key()))
    if not found:
        told = (
            "" if nearest is None else f" {nearest[1]} misses by {nearest[0]:,} bytes, the least."
        )
        raise OutOfReachError(f"Nothing holds this model in {limits.text()}.{told}")
    kept: list[str] = []
    counts: dict[str, int] = {}
    for _, text, key in sorted(found):
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= ALIKE and text not in kept:
            kept.append(text)
    return kept


def _recipes(limits: Budget) -> Iterator[str]:
    """What the catalogue offers: methods alone, divided, repaired, with caches and drafters."""
    known = methods.catalogue()
    weights = [key for key, cls in known.items() if issubclass(cls, Leveled)]
    weights = [key for key in weights if known[key].stage < Stage.REPAIR]
    caches = [key for key, cls in known.items() if issubclass(cls, CacheMethod)]
    drafters = [key for key, cls in known.items() if issubclass(cls, DecodeMethod)]
    endings = [""]
    if limits.context:
        endings += [f" + {cache}@{bits:g}" for cache in caches for bits in CACHE_BITS]
    if limits.decode_speedup or limits.decode_tps:
        endings += [f" + {drafter}" for drafter in drafters]
    for base in weights:
        for text in (base, *_extended(base)):
            body, by, allocator = text.partition(" by ")
            yield from (f"{body}{ending}{by}{allocator}" for ending in endings)


def _extended(base: str) -> Iterator[str]:
    """A quantiser with its budget divided over layers, and with its errors repaired."""
    known = methods.catalogue()
    if not issubclass(known[base], LayerMethod) or known[base].stage != Stage.QUANTISE:
        return
    yield from (f"{base} by {allocator}" for allocator in search.catalogue())
    for key, cls in known.items():
        if cls.stage == Stage.REPAIR:
            with contextlib.suppress(ParetoscopeError):
                yield Recipe.parse(f"{base} + {key}").text()


def _evaluate(
    service: Service, wanted: list[str], model: str, *, tier: str, speed: str, owner: str
) -> Iterator[Evaluation]:
    submitted = [
        (text, service.submit(text, model, tier=tier, speed=speed, owner=owner)) for text in wanted
    ]
    for text, one in submitted:
        while one.job_id and service.job(one.job_id).active:
            service.wait(one.job_id, 5.0)
        known = service.store.results.known(one.run_id)
        run = service.run(one.run_id) if known else None
        kld = None if run is None else run.reading("kld_mean")
        value = None if kld is None else kld.value
        seconds = run.seconds if run is not None and one.job_id else 0.0
        yield Evaluation(text, tier, one.run_id, value, seconds)


def _survivors(service: Service, made: list[Evaluation]) -> list[str]:
    """A third of a rung, at least two; one alone where it can be told from all the others."""
    ranked = sorted((one for one in made if one.kld is not None), key=lambda one: one.kld or 0.0)
    if not ranked:
        raise OutOfReachError("Every candidate failed; the log of each job says why.")
    ends = [service.run(one.run_id).reading("kld_mean") for one in ranked[:2]]
    first, second = (ends[0], ends[-1])
    if len(ranked) == 1 or (
        first is not None
        and second is not None
        and first.high is not None
        and second.low is not None
        and first.high < second.low
    ):
        return [ranked[0].recipe]
    return [one.recipe for one in ranked[: max(2, len(made) // SHARE)]]
