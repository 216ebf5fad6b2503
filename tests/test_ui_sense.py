"""What a divergence means is told by the runs nearest to it on the chart, and by nothing else."""

from __future__ import annotations

import re

import pytest

from backend.service import Filter, Service
from backend.store.results import EVERYTHING
from backend.store.store import Store
from tests.page_results import result
from tests.result_documents import reading
from ui import views

# divergence, agreement, perplexity; the first is farther than twice 0.01 away from it.
MEASURED = (
    (0.0049, 99.9, 1.001), (0.008, 97.0, 1.012), (0.011, 90.5, 1.010), (0.019, 94.0, 1.030),
    (0.9, 62.0, 2.4), (0.95, 64.0, 2.5), (1.0, 63.0, 2.6), (1.1, 61.0, 2.9), (1.2, 60.0, 3.0),
    (1.9, 30.0, 9.0),
)  # fmt: skip


def measured(number, distance, agree, ratio, **other):
    found = result(f"{number:016x}", f"rtn@{number}", "quantise", (7e5 + number, distance, 1.0))
    found["readings"] = [
        one | {"value": agree} if one["name"] == "top1_agree" else one for one in found["readings"]
    ]
    found["readings"].append(reading("ppl_ratio", ratio, unit="×"))
    return found | other


@pytest.fixture
def service(tmp_path, monkeypatch):
    monkeypatch.setattr("backend.service.FIRST_RESULTS", tmp_path / "none")
    (home := tmp_path / "home").mkdir()
    with Store(home) as store:
        for number, values in enumerate(MEASURED, 1):
            store.results.add(measured(number, *values))
        broken = measured(11, 0.1, 5.0, 50.0, status="broken")
        store.results.add(broken)
    with Service(home, run_jobs=False) as opened:
        yield opened


def told(service, x="resident_bytes", y="kld_mean", chosen=EVERYTHING):
    return views.figure(service, x, y, chosen)["sense"]


def test_each_value_is_told_by_up_to_five_runs_within_a_factor_of_two(service):
    """Of the ten that are sound, three are near 0.01, none near 0.1, and five nearest to 1."""
    assert told(service) == (
        "What a divergence means, by the runs nearest on this chart: 0.01 nats leave the "
        "first choice the same at 90.5 to 97.0 % of tokens and perplexity at 1.01×; "
        "1, at 60.0 to 64.0 % and 2.60×."
    )


def test_it_stands_by_the_divergence_whichever_side_and_by_no_other_axis(service):
    assert told(service, "kld_mean", "resident_bytes") == told(service)
    assert told(service, "resident_bytes", "top1_agree") == ""


def test_filters_choose_the_runs_that_tell(service):
    assert told(service, chosen=Filter(families=("cache",))) == ""
    service.store.results.add(measured(12, 0.1, 88.0, 1.1, family="cache"))
    assert told(service, chosen=Filter(families=("cache",))) == (
        "What a divergence means, by the runs nearest on this chart: 0.1 nats leave the "
        "first choice the same at 88.0 % of tokens and perplexity at 1.10×."
    )


def test_runs_without_these_readings_tell_nothing(service, tmp_path):
    bare = result("f" * 16, "rtn@4", "prune", (7e5, 0.1, 1.0))
    service.store.results.add(bare)
    assert told(service, chosen=Filter(families=("prune",))) == ""


def test_the_shipped_runs_tell_of_all_three_and_what_they_say_is_theirs(tmp_path):
    with Service(tmp_path, run_jobs=False) as service:
        text = told(service)
        low, high = map(float, re.search(r"0\.1, at ([\d.]+) to ([\d.]+) %", text).groups())
        runs = service.runs(metrics=("kld_mean", "top1_agree"))
    near = runs[(runs["kld_mean"] > 0.05) & (runs["kld_mean"] < 0.2)]["top1_agree"]
    assert near.min() - 0.05 <= low < high <= near.max() + 0.05
    assert "0.01 nats" in text
    assert "; 1, at " in text
