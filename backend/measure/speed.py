"""How fast a variant reads and writes, as a ratio to the dense model in the same process.

Both arms do identical work on recorded tokens; a second copy of the dense arm tells whether this
host can be believed at all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from backend.decoding.greedy import choose, write
from backend.measure.reading import Reading, take
from backend.measure.rounds import (
    Arm,
    Clock,
    Limits,
    Rounds,
    ratio,
    run_rounds,
    same_arm_passes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.decoding.model import LanguageModel, Session

DENSE, CONTROL, VARIANT = "dense", "dense again", "variant"
CEILING = 1.05


@dataclass(frozen=True)
class SpeedPlan:
    """What is timed and for how long.

    Attributes:
        seconds: wall time for all phases together.
        prefill_tokens: length of the prompt that is read.
        prompt_tokens: context before decoding.
        steps: tokens decoded per run.
        batches: numbers of sequences decoded at once.
        slice_seconds: an arm's share of a round.
    """

    seconds: float = 20.0
    prefill_tokens: int = 256
    prompt_tokens: int = 128
    steps: int = 32
    batches: tuple[int, ...] = (1, 8)
    slice_seconds: float = 0.05


SWEEP = SpeedPlan(seconds=2.5, steps=8, batches=(1,), slice_seconds=0.02)


@dataclass
class SpeedReport:
    """Readings and the raw rounds they come from.

    Attributes:
        readings: rates of the variant and its speed-ups.
        rounds: by phase: prefill, decode, decode_8.
        noisy_host: whether a phase failed its control.
    """

    readings: list[Reading] = field(default_factory=list)
    rounds: dict[str, Rounds] = field(default_factory=dict)
    noisy_host: bool = False

    def add(self, phase: str, rounds: Rounds, device: torch.device, beside: str = "dense") -> None:
        """Add the rate and, with an arm beside it, the speed-up of one phase.

        Where the control fails, CPU time decides; on a GPU that says nothing, and nothing is
        claimed.
        """
        on_cpu = device.type == "cpu"
        self.rounds[phase] = rounds
        head, _, tail = phase.partition("_")
        tail = f"_{tail}" if tail else ""
        rate, spread = rounds.rate(VARIANT)
        count = len(rounds.wall)
        flag = f"spread {100 * spread:.0f} %" if spread > 0.1 else ""
        if spread > 0.25:
            flag += ", unsteady"
        self.readings += take(f"{head}_tps{tail}", rate, samples=count, note=flag)
        if DENSE not in rounds.names:
            return
        control = ratio(rounds, DENSE, CONTROL)
        passed = same_arm_passes(control)
        self.noisy_host |= not passed
        dense_rate, _ = rounds.rate(DENSE)
        note = f"{beside} {dense_rate:.4g} tok/s"
        if not passed:
            note = (
                f"noisy_host: two copies of the {beside} model did not come out equal within 5 %, "
                f"so this is the ratio of CPU time; {note}"
            )
            if not on_cpu:
                return
        found = ratio(rounds, DENSE, VARIANT, "wall" if passed else "cpu")
        name = f"{head}_speedup{tail}"
        self.readings += take(name, found.value, found.low, found.high, samples=count, note=note)


def measure_speed(
    variant: LanguageModel,
    dense: LanguageModel | None,
    tokens: Sequence[int],
    plan: SpeedPlan | None = None,
    *,
    bytes_per_step: int | None = None,
    bandwidth: float | None = None,
    clock: Clock | None = None,
) -> SpeedReport:
    """Return prefill and decode rates of `variant`, and ratios where `dense` is at hand.

    Args:
        variant: the artefact.
        dense: the dense model in the same process, or None for rates only.
        tokens: recorded ids that both are fed; repeated where too few.
        plan: what and how long.
        bytes_per_step: bytes that one decode step must read, to check against `bandwidth`.
        bandwidth: bytes per second this host copies.
        clock: injected in tests.
    """
    plan = plan or SpeedPlan()
    report = SpeedReport()
    share = Limits(plan.seconds / (1 + len(plan.batches)), plan.slice_seconds)
    models = {VARIANT: variant}
    if dense is not None:
        models = {DENSE: dense, CONTROL: dense, VARIANT: variant}
    row = _recorded(tokens, max(plan.prefill_tokens, plan.prompt_tokens + plan.steps))
    arms = [_prefill(name, model, row, plan) for name, model in models.items()]
    rounds = run_rounds(arms, share, clock=clock)
    report.add("prefill", rounds, variant.device)
    milliseconds = 1000 * float(_median(rounds.column(VARIANT)))
    report.readings += take("ttft_ms", milliseconds, samples=len(rounds.wall))
    for batch in plan.batches:
        arms = [_decode(name, model, row, plan, batch) for name, model in models.items()]
        rounds = run_rounds(arms, share, clock=clock)
        report.add("decode" if batch == 1 else f"decode_{batch}", rounds, variant.device)
        if batch == 1:
            step = 1000 * float(_median(rounds.column(VARIANT))) / plan.steps
            report.readings += take("tpot_ms", step, samples=len(rounds.wall))
            if bytes_per_step and bandwidth:
                _check_ceiling(report, bytes_per_step, bandwidth)
    return report


def measure_prefill(
    together: Callable[[], object],
    padded: Callable[[], object],
    *,
    tokens: int,
    device: torch.device,
    seconds: float = 10.0,
    note: str = "",
    clock: Clock | None = None,
) -> SpeedReport:
    """Return the rate of reading some prompts together, and its ratio to reading them padded.

    Args:
        together: reads them all and brings the first new ids to the host.
        padded: does the same with prompts filled up to the longest.
        tokens: of the prompts, nothing that fills up counted.
        device: where both run.
        seconds: of all rounds.
        note: told beside both readings.
        clock: injected in tests.
    """
    report = SpeedReport()
    reads = {DENSE: padded, CONTROL: padded, VARIANT: together}
    arms = [Arm(name, lambda _, read=read: read(), work=tokens) for name, read in reads.items()]
    rounds = run_rounds(arms, Limits(seconds), clock=clock)
    report.add("prefill_mixed", rounds, device, beside="padded")
    report.readings = [
        replace(one, note="; ".join(filter(None, [note, one.note]))) for one in report.readings
    ]
    return report


def copy_bandwidth(size: int, device: torch.device | None = None, seconds: float = 0.2) -> float:
    """Return bytes moved per second when `size` bytes are copied: each is read and written.

    Take the size of the weights, so that both sit at the same level of the memory.
    """
    source = torch.empty(max(size, 2**16), dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        target.copy_(source)
        _synchronise(source.device)
        best = min(best, time.perf_counter() - start)
    return 2 * source.numel() / best


@torch.inference_mode()
def decode_seconds(model: LanguageModel, steps: int = 24, rounds: int = 5) -> float:
    """Return seconds per decoded token of one sequence: the quickest of a few short rounds."""
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    best = float("inf")
    for _ in range(rounds):
        session = model.session(1, steps + 1)
        session.feed(token)
        _synchronise(model.device)
        start = time.perf_counter()
        write(session, token, steps)
        best = min(best, (time.perf_counter() - start) / steps)
    return best


def _prefill(name: str, model: LanguageModel, row: list[int], plan: SpeedPlan) -> Arm:
    """Return an arm that reads a prompt and brings the first new id to the host."""
    tokens = torch.tensor([row[: plan.prefill_tokens]], device=model.device)

    @torch.inference_mode()
    def run(_: object) -> None:
        session = model.session(1, plan.prefill_tokens)
        int(choose(session.read(tokens)[0]))

    return Arm(name, run, work=float(plan.prefill_tokens))


def _decode(name: str, model: LanguageModel, row: list[int], plan: SpeedPlan, batch: int) -> Arm:
    """Return an arm that writes so many tokens behind a recorded prompt and one token more."""
    total = plan.prompt_tokens + plan.steps
    tokens = torch.tensor([row[: plan.prompt_tokens + 1]] * batch, device=model.device)

    kept: list[Session] = []

    @torch.inference_mode()
    def prepare() -> Session:
        if kept:
            kept[0].crop(plan.prompt_tokens)
            return kept[0]
        session = model.session(batch, total)
        session.read(tokens[:, : plan.prompt_tokens])
        if session.croppable() >= plan.steps:
            kept[:] = [session]
        _synchronise(model.device)
        return session

    @torch.inference_mode()
    def run(session: Session) -> None:
        write(session, tokens[:, -1:], plan.steps)

    return Arm(name, run, prepare, float(batch * plan.steps))


def _check_ceiling(report: SpeedReport, bytes_per_step: int, bandwidth: float) -> None:
    """Withdraw the decode speed if it moves more bytes than this host can."""
    rates = [each for each in report.readings if each.name == "decode_tps"]
    if not rates or rates[0].value * bytes_per_step <= CEILING * bandwidth:
        return
    note = (
        f"invalid: {rates[0].value * bytes_per_step:.3g} B/s are above the {bandwidth:.3g} B/s "
        "this host copies"
    )
    kept = [each for each in report.readings if each.name != "decode_speedup"]
    report.readings = [
        replace(each, note=note) if each.name == "decode_tps" else each for each in kept
    ]


def _recorded(tokens: Sequence[int], count: int) -> list[int]:
    """Return `count` ids, going round where there are fewer."""
    if not tokens:
        raise ValueError("Speed is measured on recorded tokens; none were given.")
    return [tokens[index % len(tokens)] for index in range(count)]


def _median(values: object) -> float:
    """Return the median of an array."""
    return float(torch.as_tensor(values).quantile(0.5))


def _synchronise(device: torch.device) -> None:
    """Wait for a GPU to finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
