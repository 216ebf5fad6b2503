"""The benchmark of claims: an interval decides, a count needs none, too little measured is open."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from backend.measure.reading import take
from docs.benchmarks.claimed import CLAIMS, Claim
from docs.benchmarks.claims import judge, keep, kept


@dataclass
class Ran:
    """What the judge asks of a run."""

    found: list
    recipe: str = "rsd"
    run_id: str = "0"
    model: dict = field(default_factory=lambda: {"name": "tiny", "parameters": 1})

    def reading(self, name):
        return next((one for one in self.found if one.name == name), None)


OWN = (4.5, 4.4, 4.6)
CASES = [  # (own, rival, what it shows), each a value and both ends of an interval
    (OWN, (4.2, 4.0, 4.3), "yes"),
    (OWN, (4.2, 4.0, 4.45), "open"),
    (OWN, (4.8, 4.7, 4.9), "no"),
    (OWN, (4.2,), "open"),
    ((4.5,), (4.2, 4.0, 4.3), "open"),
    ((1.0, 1.0, 1.0), (4.2, 4.0, 4.3), "no"),
]


@pytest.mark.parametrize(("own", "rival", "shows"), CASES)
def test_two_measured_readings_are_told_apart_where_both_have_intervals(own, rival, shows):
    claim = Claim("rsd", "keeps more", "rsd", "speculative", "mean_accepted")
    runs = {
        name: Ran(take("mean_accepted", *ends))
        for name, ends in (("rsd", own), ("speculative", rival))
    }
    assert judge(Path(), claim, runs).shows == shows


def test_outcomes_stay_beside_others_until_nobody_claims_them(tmp_path):
    path = tmp_path / "claims.json"
    runs = {
        name: Ran(take("mean_accepted", 4.5, 4.4, 4.6))
        for name in ("rsd", "dyspec", "speculative", "gone")
    }
    first, second = (one for one in CLAIMS if one.method in ("rsd", "dyspec"))
    gone = replace(first, says="keeps what nobody claims")
    keep([judge(Path(), claim, runs) for claim in (first, gone)], path)
    keep([judge(Path(), second, runs)], path)
    assert {one["claim"]["says"] for one in kept(path)} == {first.says, second.says}
    assert {one["claim"]["method"] for one in kept(path)} == {"rsd", "dyspec"}


@pytest.mark.parametrize(("kind", "shows"), [("counted", "yes"), ("measured", "open")])
def test_a_number_decides_alone_only_where_it_was_counted(kind, shows):
    claim = Claim("dfloat11", "takes less", "dfloat11", "", "bpw_eff", 11.2)
    outcome = judge(Path(), claim, {"dfloat11": Ran(take("bpw_eff", 10.9, kind=kind))})
    assert (outcome.shows, outcome.low) == (shows, pytest.approx(-0.3))
