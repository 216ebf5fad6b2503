"""Advice and search over the shipped results: candidates fit, grades grade, answers come."""

import pytest

from backend.budget import Budget
from backend.errors import OutOfReachError, UnknownNameError
from backend.recipes import Recipe
from backend.service import Filter, Service
from backend.solve import ALIKE, candidates


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("home"), run_jobs=False) as opened:
        yield opened


@pytest.mark.parametrize("text", ["800 kB", "3 bits", "4 MB, 512 context x 8"])
def test_candidates_fit_the_budget_and_are_of_many_kinds(service, text):
    found = candidates(service, Budget.parse(text), text, "default")
    assert len(found) >= 8
    assert len(set(found)) == len(found)
    first = [Recipe.parse(one).stages[0].key() for one in found]
    assert max(map(first.count, first)) <= ALIKE
    for one in found:
        assert not service.advice.fit(one, text).missing
    assert any(" by " in one for one in found)
    if "context" in text:
        assert any("kv-int" in one for one in found[:8])


def test_a_budget_that_nothing_holds_names_what_comes_nearest(service):
    with pytest.raises(OutOfReachError, match=r"misses by [0-9,]+ bytes"):
        candidates(service, Budget.parse("60 kB"), "60 kB", "default")


def test_an_answer_comes_from_measured_runs_within_the_budget(service):
    found = service.advice.recommend("900 kB")
    for choice in found.choices:
        assert choice.candidate.values["resident_bytes"].value <= 900_000
    frame = service.frontier()
    best = frame[(frame["x"] <= 900_000) & (frame["status"] == "done")]["y"].min()
    assert found.choices[0].candidate.values["kld_mean"].value == best
    assert found.binding.metric == "resident_bytes"


def test_a_context_counts_into_the_answer(service):
    found = service.advice.recommend("8 MB, 512 context x 8")
    held = found.choices[0].candidate.values
    cache = 8 * (held["kv_fixed_bytes"].value + 512 * held["kv_bytes_per_token"].value)
    assert held["held_bytes"].value == pytest.approx(
        held["resident_bytes"].value + cache + 4 * 8 * 2048 + 2 * 512 * (4 * 128 + 2 * 256)
    )


def test_a_model_without_runs_gets_a_sentence(service, tmp_path):
    with pytest.raises(UnknownNameError, match="sweep a few methods first"):
        service.advice.recommend("1 GB", "someone/else")


def test_what_is_expected_covers_the_catalogue_and_is_measured_where_it_was(service):
    expected = service.advice.expected(budgets=(4, 8)).set_index("recipe")
    assert len(expected) >= 15
    assert (expected["kld_low"] <= expected["kld_mean"]).all()
    known = service.frontier()
    same = known[known["recipe"] == "gptq@4"].iloc[0]
    assert expected.loc["gptq@4", "kld_mean"] == same["y"]


def test_standing_and_summary_agree_with_the_frontier(service):
    judged = service.advice.standing()
    sure = judged[judged["p_front"] == 1.0]
    assert len(sure) >= 3
    front = judged[judged["on_frontier"]]
    for row in sure[~sure["on_frontier"]].itertuples():  # beaten by less than anyone can tell
        near = (front["x"] * 1.01 >= row.x) & (front["y"] * 1.05 >= row.y)
        assert (near & (front["x"] <= row.x) & (front["y"] <= row.y)).any()
    found = service.advice.summary(Filter(models=("default",)))
    assert 0 < found.low <= found.hypervolume <= found.high < 1
