"""What papers claim against what is measured here: `python -m docs.benchmarks.claims`.

A claim names a method, what should hold in one sentence, its own recipe, and what it must beat:
a rival recipe at the same budget, or a number. The metric is any reading's name and says which
way is better; `kld_mean` is compared paired, token by token, with an interval clustered by
document, other readings by their own intervals. A claim holds where the interval says so, fails
where it says the opposite, and is open in between. The claims stand in claimed.py; the runs go
through the service, and outcomes are kept in data/results/claims.json, from which
`python -m docs.write` tells them beside each method's own claim.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from backend.errors import ParetoscopeError
from backend.measure.reading import Reading, metric
from backend.measure.scores import TokenScores, compare
from backend.service import Service
from backend.store.results import Run
from docs.benchmarks.claimed import CLAIMS, Claim

KEPT = Path(__file__).parents[2] / "data" / "results" / "claims.json"


@dataclass(frozen=True)
class Outcome:
    """A claim as measured on one model.

    Attributes:
        claim: what should hold.
        model: on which.
        parameters: of that model.
        own: the metric of the claim's own recipe.
        rival: that of the rival, or the number.
        low: lower end of the interval of own less rival.
        high: upper end.
        shows: yes, no, or open where the interval contains no difference.
        runs: ids of the runs.
    """

    claim: Claim
    model: str
    parameters: int
    own: float
    rival: float
    low: float
    high: float
    shows: str
    runs: tuple[str, ...]


def main() -> None:
    """Run what is needed on one model, judge, keep the outcomes and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--model", default="default", help="default, or a folder with a model")
    parser.add_argument("--methods", default="", help="only claims of these, joined by commas")
    parser.add_argument("--tier", default="quick")
    options = parser.parse_args()
    wanted = set(filter(None, options.methods.split(",")))
    claims = [one for one in CLAIMS if not wanted or one.method in wanted]
    with Service(options.home) as service:
        runs = _runs(service, claims, options.model, options.tier)
        found = [judge(service.home, claim, runs) for claim in claims]
        outcomes = [one for one in found if one is not None]
    keep(outcomes)
    for one in outcomes:
        sys.stdout.write(
            f"{one.claim.method}: {one.claim.says}: {one.own:.4g} against {one.rival:.4g} "
            f"[{one.low:.3g}, {one.high:.3g}] {one.shows}\n"
        )


def judge(home: Path, claim: Claim, runs: dict[str, Run]) -> Outcome | None:
    """A claim by its runs; None where one is missing."""
    names = [claim.own] if claim.than is not None else [claim.own, claim.rival]
    if not all(name in runs for name in names):
        return None
    own = runs[claim.own]
    reading, sure = _with_interval(own, claim.metric)
    if claim.than is not None:
        rival, low, high = claim.than, reading.low - claim.than, reading.high - claim.than
    elif claim.metric == "kld_mean":
        first, second = (_scores(home, runs[name]) for name in names)
        found = compare(first, second)
        rival, low, high, sure = float(second.kld.mean()), found.low, found.high, True
    else:
        other, told = _with_interval(runs[claim.rival], claim.metric)
        sure = sure and told
        rival, low, high = other.value, reading.low - other.high, reading.high - other.low
    smaller = metric(claim.metric).direction != "higher"
    better, worse = (high < 0, low > 0) if smaller else (low > 0, high < 0)
    if not sure:
        better = worse = False
    shows = "yes" if better else "no" if worse else "open"
    ids = tuple(runs[name].run_id for name in names)
    name, parameters = own.model["name"], int(own.model["parameters"])
    return Outcome(claim, name, parameters, reading.value, rival, low, high, shows, ids)


def _with_interval(run: Run, name: str) -> tuple[Reading, bool]:
    """A reading with both ends, and whether they were told or it was counted.

    Where they were not, too little was measured for an interval, and they are the number.
    """
    one = run.reading(name)
    if one is None:
        raise SystemExit(f"{run.recipe} has no reading {name}.")
    ends = [one.value if end is None else end for end in (one.low, one.high)]
    sure = one.kind == "counted" or (one.low is not None and one.high is not None)
    return replace(one, low=ends[0], high=ends[1]), sure


def keep(outcomes: Iterable[Outcome], path: Path = KEPT) -> None:
    """Put outcomes beside those kept of other claims and models; those of no claim go."""
    claimed = {(claim.method, claim.says) for claim in CLAIMS}
    known = {_place(one): one for one in kept(path) if _place(one)[:2] in claimed}
    for one in outcomes:
        plain = json.loads(json.dumps(asdict(one)))
        known[_place(plain)] = plain
    path.write_text(json.dumps([known[place] for place in sorted(known)], indent=1) + "\n")


def kept(path: Path = KEPT) -> list[dict[str, Any]]:
    """Outcomes as they were kept, plain values; none where the file is not there."""
    return json.loads(path.read_text()) if path.is_file() else []


def _place(outcome: Outcome | dict[str, Any]) -> tuple[str, str, str]:
    one = outcome if isinstance(outcome, dict) else asdict(outcome)
    return one["claim"]["method"], one["claim"]["says"], one["model"]


def _runs(service: Service, claims: list[Claim], model: str, tier: str) -> dict[str, Run]:
    paced = [one for one in claims if "speedup" in one.metric or one.metric == "mean_accepted"]
    timed = {recipe for one in paced for recipe in (one.own, one.rival)}
    recipes = {recipe for one in claims for recipe in (one.own, one.rival) if recipe}
    submissions = {}
    for recipe in sorted(recipes):
        try:
            wish = {"tier": tier, "speed": "sweep" if recipe in timed else ""}
            done = service.submit(recipe, model, **wish)
            known = None if done.job_id else service.run(done.run_id)
            if known and not _kept_tokens(service.home, known).exists():
                done = service.submit(recipe, model, **wish, again=True)  # measured elsewhere
            submissions[recipe] = done
        except ParetoscopeError as error:
            sys.stderr.write(f"{recipe}: {error}\n")
    found = {}
    for recipe, submission in submissions.items():
        job = service.wait(submission.job_id, 1800) if submission.job_id else None
        if job is not None and job.state != "done":
            sys.stderr.write(f"{recipe}: {job.state}, {job.reason}\n")
            continue
        found[recipe] = service.run(submission.run_id)
    return found


def _scores(home: Path, run: Run) -> TokenScores:
    return TokenScores.load(_kept_tokens(home, run))


def _kept_tokens(home: Path, run: Run) -> Path:
    return home / "artefacts" / f"{run.artefact['key']}.tokens.safetensors"


if __name__ == "__main__":
    main()
