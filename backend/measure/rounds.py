"""Times several arms against each other in interleaved rounds, on a host that is never quiet.

Knows no model: an arm is two callables. Clocks are injected, so its tests take no time.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.measure.statistics import Interval, relative_half_width, speed_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

WARM_PASSES = 3
MOST_WARM_PASSES = 10
STEADY = 1.05
GATE_HALF_WIDTH = 0.05


@dataclass(frozen=True)
class Clock:
    """Wall and CPU seconds of this process."""

    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = time.process_time


@dataclass(frozen=True)
class Arm:
    """One thing to be timed.

    Attributes:
        name: of the arm.
        run: the timed work; it ends only when the result is on the host.
        prepare: what must be made anew before each run, not timed.
        work: tokens that one run handles.
        warmed: called once between warm-up and rounds.
    """

    name: str
    run: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None
    work: float = 1.0
    warmed: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Limits:
    """When to stop.

    Attributes:
        seconds: wall time for everything, warm-up included.
        slice_seconds: an arm runs at least this long in a round.
        fewest: rounds below which only `seconds` stops.
        most: rounds.
        half_width: stop when every ratio is known this well, on the log scale.
    """

    seconds: float = 20.0
    slice_seconds: float = 0.05
    fewest: int = 10
    most: int = 48
    half_width: float = 0.03


@dataclass
class Rounds:
    """Seconds per run of each arm in each round.

    Attributes:
        names: of the arms, the columns.
        work: tokens per run of each.
        wall: [rounds, arms] wall seconds.
        cpu: [rounds, arms] CPU seconds.
    """

    names: tuple[str, ...]
    work: tuple[float, ...]
    wall: list[list[float]] = field(default_factory=list)
    cpu: list[list[float]] = field(default_factory=list)

    def column(self, name: str, clock: str = "wall") -> NDArray[np.float64]:
        """Return the seconds of one arm over the rounds."""
        table = np.asarray(self.wall if clock == "wall" else self.cpu, np.float64)
        return table.reshape(-1, len(self.names))[:, self.names.index(name)]

    def rate(self, name: str) -> tuple[float, float]:
        """Return the median tokens per second of an arm and its interquartile range over it."""
        rates = self.work[self.names.index(name)] / np.maximum(self.column(name), 1e-12)
        low, middle, high = np.quantile(rates, [0.25, 0.5, 0.75])
        return float(middle), float((high - low) / middle)


def run_rounds(
    arms: Sequence[Arm], limits: Limits, *, clock: Clock | None = None, seed: int = 0
) -> Rounds:
    """Return the seconds of every arm over interleaved rounds in random order.

    Two arms alternate ABBA. Every round is complete; at least one is run, whatever the limit.
    """
    clock = clock or Clock()
    end = clock.wall() + limits.seconds
    order = random.Random(seed)
    repeats = [_warm_up(arm, limits, clock, end, len(arms)) for arm in arms]
    for arm in arms:
        arm.warmed()
    rounds = Rounds(tuple(arm.name for arm in arms), tuple(arm.work for arm in arms))
    sequence = list(range(len(arms)))
    longest = 0.0
    while len(rounds.wall) < limits.most:
        began = clock.wall()
        if rounds.wall and began + longest > end:
            break
        if len(rounds.wall) >= limits.fewest and _precise(rounds, limits.half_width):
            break
        if len(arms) == 2:
            sequence.reverse()
        else:
            order.shuffle(sequence)
        wall, cpu = [0.0] * len(arms), [0.0] * len(arms)
        for index in sequence:
            wall[index], cpu[index] = _time(arms[index], repeats[index], clock)
        rounds.wall.append(wall)
        rounds.cpu.append(cpu)
        longest = max(longest, clock.wall() - began)
    return rounds


def ratio(rounds: Rounds, dense: str, variant: str, clock: str = "wall") -> Interval:
    """Return how many times faster `variant` handles a token than `dense`."""
    per_token = [
        rounds.column(name, clock) / rounds.work[rounds.names.index(name)]
        for name in (dense, variant)
    ]
    return speed_ratio(*(np.maximum(each, 1e-12) for each in per_token))


def same_arm_passes(control: Interval) -> bool:
    """Return whether two copies of one arm come out equal: 1 inside, half-width at most 5 %."""
    if control.low is None or control.high is None:
        return False
    return control.low <= 1 <= control.high and relative_half_width(control) <= GATE_HALF_WIDTH


def _warm_up(arm: Arm, limits: Limits, clock: Clock, end: float, arms: int) -> int:
    """Run an arm until it is steady; return how many runs fill its slice of a round."""
    cap = clock.wall() + max(0.0, end - clock.wall()) / (3 * arms)
    times: list[float] = []
    while len(times) < MOST_WARM_PASSES:
        times.append(_time(arm, 1, clock)[0])
        recent = times[-3:]
        if len(times) >= 2 * WARM_PASSES and max(recent) <= STEADY * min(recent):
            break
        if clock.wall() > cap:
            break
    quickest = max(min(times), 1e-9)
    return max(1, min(1000, math.ceil(limits.slice_seconds / quickest)))


def _time(arm: Arm, repeats: int, clock: Clock) -> tuple[float, float]:
    """Return mean wall and CPU seconds of `repeats` runs."""
    wall = cpu = 0.0
    for _ in range(repeats):
        state = arm.prepare()
        wall_start, cpu_start = clock.wall(), clock.cpu()
        arm.run(state)
        cpu += clock.cpu() - cpu_start
        wall += clock.wall() - wall_start
    return wall / repeats, cpu / repeats


def _precise(rounds: Rounds, half_width: float) -> bool:
    """Return whether every arm's ratio to the first is known well enough."""
    first = rounds.names[0]
    return all(
        relative_half_width(ratio(rounds, first, name)) <= half_width for name in rounds.names[1:]
    )
