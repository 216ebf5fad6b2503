"""From measured runs to an answer: limits in, candidates out, with reasons. Pure functions.

A run is feasible when the less favourable end of its interval meets every limit. Among the
feasible the best is the one with the least KL divergence; beside it stand the smallest and the
fastest that cannot be told from it or cost little more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

QUALITY, SIZE, SPEED = "kld_mean", "resident_bytes", "decode_speedup"
HELD = "held_bytes"  # no reading: weights, cache and buffers at the context that is asked about
TIE = 0.05  # relative difference of divergences below which nobody can tell
SAME_SIZE = 0.01  # relative difference of sizes below which none is called smaller
NEAR = 2.0  # times the least divergence up to which a faster or smaller run is worth naming


@dataclass(frozen=True)
class Value:
    """A reading: its value and 95 % interval, the ends None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A measured run.

    Attributes:
        run_id: of the run.
        recipe: in the short form.
        stages: how many methods it takes; fewer are simpler.
        values: readings by name.
    """

    run_id: str
    recipe: str
    stages: int
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Limit:
    """A bound on a reading."""

    metric: str
    side: Literal["most", "least"]
    bound: float

    def violation(self, candidate: Candidate) -> float:
        """How far a run misses, as a share of the bound; 0 where it is met, infinite unmeasured."""
        reading = candidate.values.get(self.metric)
        if reading is None:
            return math.inf
        if self.side == "most":
            worst = reading.value if reading.high is None else reading.high
            return max(0.0, worst - self.bound) / max(abs(self.bound), 1e-12)
        worst = reading.value if reading.low is None else reading.low
        return max(0.0, self.bound - worst) / max(abs(self.bound), 1e-12)


@dataclass(frozen=True)
class Choice:
    """A run that is recommended, and why."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True)
class Change:
    """What another bound would give.

    Attributes:
        limit: as it was set.
        bound: the nearest at which the answer changes.
        candidate: the answer then.
    """

    limit: Limit
    bound: float
    candidate: Candidate


@dataclass(frozen=True)
class Recommendation:
    """An answer.

    Attributes:
        choices: up to three feasible runs, the best first; none where nothing is feasible.
        binding: the limit without which the answer would be best; None if none binds.
        changes: for each limit that binds, the nearest bound that changes the answer.
        nearest: where nothing is feasible, the run that misses by least.
        missed: its limits that are not met, with the share by which each is missed.
        dense: the model uncompressed, where it meets every limit and the least divergence is asked.
    """

    choices: tuple[Choice, ...]
    binding: Limit | None = None
    changes: tuple[Change, ...] = ()
    nearest: Candidate | None = None
    missed: tuple[tuple[Limit, float], ...] = ()
    dense: Candidate | None = None


def recommend(
    candidates: Sequence[Candidate], limits: Sequence[Limit], *, smallest: bool = False
) -> Recommendation:
    """The best measured runs within limits.

    Args:
        candidates: runs of one model, protocol and machine.
        limits: all of which must hold.
        smallest: ask for the fewest bytes rather than the least divergence, as a floor of
            quality without a limit of size does.
    """
    known = [one for one in candidates if QUALITY in one.values and SIZE in one.values]
    feasible = [one for one in known if _meets(one, limits)]
    if not feasible:
        return _nearest(known, limits)
    first = min(feasible, key=_by_size if smallest else _by_quality)
    best = "the fewest bytes" if smallest else "the least divergence"
    choices = [Choice(first, f"{best} of {len(feasible)} runs within the limits")]
    rest = [one for one in feasible if one is not first]
    if not smallest and (tied := [one for one in rest if _tied(one, first)]):
        small = min(tied, key=_by_size)
        if _size(small) < _size(first) * (1 - SAME_SIZE):
            share = 100 * (1 - _size(small) / _size(first))
            choices.append(
                Choice(small, f"{share:.0f} % smaller, and its quality cannot be told apart")
            )
    taken = [choice.candidate for choice in choices]
    if fast := _faster([one for one in rest if one not in taken], first, smallest):
        choices.append(fast)
    spare = [one for one in rest if one not in [choice.candidate for choice in choices]]
    if len(choices) < 3 and spare:
        second = min(spare, key=_by_size if smallest else _by_quality)
        choices.append(Choice(second, "the runner-up"))
    changes = [found for limit in limits if (found := _change(known, limits, limit, smallest))]
    changes.sort(key=lambda one: (_by_size if smallest else _by_quality)(one.candidate))
    binding = changes[0].limit if changes else None
    dense = next((one for one in feasible if one.recipe == "dense" and not smallest), None)
    return Recommendation(tuple(choices[:3]), binding, tuple(changes), dense=dense)


def _meets(candidate: Candidate, limits: Sequence[Limit]) -> bool:
    return all(limit.violation(candidate) == 0 for limit in limits)


def _quality(one: Candidate) -> float:
    return one.values[QUALITY].value


def _size(one: Candidate) -> float:
    return one.values[SIZE].value


def _speed(one: Candidate) -> float:
    return one.values[SPEED].value if SPEED in one.values else 0.0


def _by_quality(one: Candidate) -> tuple[float, float, float, int, str]:
    return _quality(one), _size(one), -_speed(one), one.stages, one.run_id


def _by_size(one: Candidate) -> tuple[float, float, float, int, str]:
    return _size(one), _quality(one), -_speed(one), one.stages, one.run_id


def _tied(one: Candidate, other: Candidate) -> bool:
    """Whether the divergences of two runs cannot be told apart."""
    first, second = sorted((one.values[QUALITY], other.values[QUALITY]), key=lambda v: v.value)
    if second.value <= first.value * (1 + TIE):
        return True
    if first.high is None or second.low is None:
        return False
    return first.high >= second.low


def _faster(rest: Sequence[Candidate], first: Candidate, smallest: bool) -> Choice | None:
    """The fastest that costs little quality and is surely faster than the first."""
    near = [one for one in rest if smallest or _quality(one) <= NEAR * _quality(first)]
    if not near:
        return None
    fast = max(near, key=_speed)
    low = fast.values[SPEED].low if SPEED in fast.values else None
    if low is None or low <= _speed(first):
        return None
    return Choice(fast, f"decodes {_speed(fast):.2f} times as fast as dense")


def _change(
    known: Sequence[Candidate], limits: Sequence[Limit], limit: Limit, smallest: bool
) -> Change | None:
    """The nearest bound of a limit at which an answer that is surely better becomes feasible."""
    order = _by_size if smallest else _by_quality
    others = [one for one in limits if one is not limit]
    free = [one for one in known if _meets(one, others) and limit.metric in one.values]
    now = [one for one in free if limit.violation(one) == 0]
    best = min(now, key=order)

    def surely_better(one: Candidate) -> bool:
        if smallest:
            return _size(one) < _size(best) * (1 - SAME_SIZE)
        return _quality(one) < _quality(best) and not _tied(one, best)

    better = [one for one in free if limit.violation(one) > 0 and surely_better(one)]
    if not better:
        return None
    near = min(better, key=lambda one: (limit.violation(one), order(one)))
    reading = near.values[limit.metric]
    end = reading.high if limit.side == "most" else reading.low
    return Change(limit, reading.value if end is None else end, near)


def _nearest(known: Sequence[Candidate], limits: Sequence[Limit]) -> Recommendation:
    reachable = [
        one for one in known if all(math.isfinite(limit.violation(one)) for limit in limits)
    ]
    if not reachable:
        return Recommendation(())
    near = min(
        reachable, key=lambda one: (sum(limit.violation(one) for limit in limits), _by_quality(one))
    )
    missed = [(limit, limit.violation(near)) for limit in limits if limit.violation(near) > 0]
    return Recommendation((), nearest=near, missed=tuple(missed))
