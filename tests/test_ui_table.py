"""The table of runs: sorted by any column, numbers as numbers, what is not known always last."""

from __future__ import annotations

import pytest

from backend.service import Service
from tests.asking import client_of
from tests.page_results import BEATEN, BROKEN, DENSE, MIDDLE, SMALL, fill, result
from ui.table import METRICS, WORDS

TEN, UNTIMED = "d" * 16, "e" * 16
NAMES = {
    DENSE: "dense", SMALL: "gptq@3", MIDDLE: "gptq@4", BEATEN: "svd@8", BROKEN: "rtn@2",
    TEN: "gptq@10", UNTIMED: "wanda@8", "": "lord@8",
}  # fmt: skip


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """A home that also has `gptq@10`, a run that was not timed, and an attempt that failed."""
    untimed = result(UNTIMED, "wanda@8", "prune", (900_000, 0.3, 1.0))
    untimed["readings"] = [one for one in untimed["readings"] if one["name"] != "decode_speedup"]
    with Service(fill(tmp_path_factory.mktemp("home")), run_jobs=False) as service:
        service.store.results.add(result(TEN, "gptq@10", "quantise", (1_300_000, 0.001, 1.2)))
        service.store.results.add(untimed)
        service.submit("lord@8", tier="smoke")
        with service.store.database.writing() as cursor:
            cursor.execute("UPDATE jobs SET state = 'failed', reason = 'no room', ended = 9")
        with client_of(service) as client:
            yield lambda order="", path="table": client.get(f"/page/{path}?order={order}")


def names(answer):
    return [NAMES[row["run_id"]] for row in answer.json()["rows"]]


def test_without_an_order_the_frontier_comes_first_and_what_failed_last(ask):
    assert names(ask()) == [
        "gptq@3", "gptq@4", "gptq@10", "dense", "rtn@2", "wanda@8", "svd@8", "lord@8",
    ]  # fmt: skip
    assert ask().json() == ask(path="figure").json()["table"]


def test_numbers_are_sorted_as_numbers(ask):
    """As texts 1.10 MB would come before 820 kB, and 0.0200 after 0.00100."""
    sizes = ["rtn@2", "gptq@3", "gptq@4", "wanda@8", "svd@8", "gptq@10", "dense"]
    assert names(ask("resident_bytes"))[:-1] == sizes
    assert names(ask("-resident_bytes"))[:-1] == sizes[::-1]
    distances = ["dense", "gptq@10", "gptq@4", "gptq@3", "wanda@8", "svd@8", "rtn@2"]
    assert names(ask("kld_mean"))[:-1] == distances


def test_what_is_not_known_comes_last_whichever_way(ask):
    for order in ("decode_speedup", "-decode_speedup"):
        assert names(ask(order))[-2:] == ["wanda@8", "lord@8"]
    fastest = names(ask("-decode_speedup"))[:-2]
    assert fastest == names(ask("decode_speedup"))[-3::-1]
    assert (fastest[0], fastest[-1]) == ("gptq@10", "rtn@2")


def test_a_recipe_is_sorted_by_its_words_and_its_bits_as_numbers(ask):
    assert names(ask("recipe")) == [
        "dense", "gptq@3", "gptq@4", "gptq@10", "lord@8", "rtn@2", "svd@8", "wanda@8",
    ]  # fmt: skip
    assert names(ask("-standing"))[:2] == ["lord@8", "rtn@2"]
    assert names(ask("family"))[0] == "dense"


def test_every_column_says_how_it_is_sorted_first_and_an_unknown_one_is_refused(ask):
    first = {one["name"]: one["first"] for one in ask().json()["columns"]}
    assert set(first) == {*WORDS, *METRICS} - {"model"}  # all runs are of one model
    assert (first["kld_mean"], first["top1_agree"]) == ("kld_mean", "-top1_agree")
    refused = ask("nonsense")
    assert refused.status_code == 404
    assert "sorted by one of recipe" in refused.json()["error"]


def test_a_report_keeps_the_order(ask):
    body = ask("-kld_mean", "report").text.partition("<tbody>")[2].partition("</tbody>")[0]
    places = [body.index(f"<td>{name}</td>") for name in ("rtn@2", "svd@8", "gptq@10", "dense")]
    assert places == sorted(places)
