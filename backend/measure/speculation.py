"""How much faster a model writes with a drafter than without one, and what a call gains.

Speed is a ratio in interleaved rounds, as in `speed`; tokens per call are a count, whose interval
comes from how prompts differ.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backend.decoding.drafter import Drafter, Silent
from backend.decoding.speculate import speculate
from backend.measure.reading import take
from backend.measure.rounds import Arm, Clock, Limits, run_rounds
from backend.measure.speed import CONTROL, DENSE, VARIANT, SpeedReport
from backend.measure.statistics import FEWEST_CLUSTERS, Interval, as_fields, clustered_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backend.decoding.model import LanguageModel


def measure_speculation(
    model: LanguageModel,
    drafter: Drafter,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int = 64,
    seconds: float = 10.0,
    clock: Clock | None = None,
) -> SpeedReport:
    """Return rate and speed-up of `model` with `drafter` against itself without, run free.

    A round writes to one prompt after another in turn, both arms the same tokens. The time to read
    the prompt is part of both. Tokens a call are counted over the first text to each prompt after
    warming up; prompts that no round came to are written to afterwards, as long as the rounds may
    have lasted, and in any case as many as an interval needs.
    """
    report, clock = SpeedReport(), clock or Clock()
    accepted: dict[int, Sequence[int]] = {}  # of each call, by place of the prompt
    drafters = {DENSE: Silent(), CONTROL: Silent(), VARIANT: drafter}
    turns = dict.fromkeys(drafters, 0)

    def write(name: str) -> None:
        place = turns[name] % len(prompts)
        turns[name] += 1
        result = speculate(model, drafters[name], prompts[place], new_tokens, ignore_end=True)
        if name == VARIANT:
            accepted.setdefault(place, result.accepted)

    def warmed(name: str) -> None:
        turns[name] = 0
        if name == VARIANT:
            accepted.clear()

    def arm(name: str) -> Arm:
        run, reset = (lambda _: write(name)), (lambda: warmed(name))
        return Arm(name, run, work=float(new_tokens), warmed=reset)

    # One run per slice and a common start keep the arms on the same prompt in every round.
    limits = Limits(seconds, slice_seconds=0.0)
    rounds = run_rounds([arm(name) for name in drafters], limits, clock=clock)
    report.add("decode", rounds, model.device)
    end = clock.wall() + seconds
    while turns[VARIANT] < len(prompts) and (len(accepted) < FEWEST_CLUSTERS or clock.wall() < end):
        write(VARIANT)
    report.readings += take("mean_accepted", **as_fields(_gained(accepted)))
    return report


def _gained(accepted: Mapping[int, Sequence[int]]) -> Interval:
    """Tokens gained per call with their interval, texts to one prompt being no independent calls.

    Args:
        accepted: drafted tokens that were kept by each call, by prompt.
    """
    calls = [(1 + kept, place) for place, each in accepted.items() for kept in each]
    return clustered_mean(*zip(*calls, strict=True)) if calls else Interval(math.nan)
