"""Budgets over HTTP: answers in words and values, and the one search in the background."""

from __future__ import annotations

import threading
import time

import pytest

from backend.advice import Advice
from backend.errors import OutOfReachError
from backend.limits import IN_PUBLIC
from backend.measure.recommend import Recommendation
from backend.rest_comparing import PREFIX
from backend.searching import Searches
from backend.service import Service
from backend.solve import Solution
from backend.store.store import Store
from tests.asking import client_of
from tests.page_results import DENSE, MIDDLE, SMALL, fill, result
from tests.result_documents import reading


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(fill(tmp_path_factory.mktemp("home")), run_jobs=False) as opened:
        foretold = result("b" * 16, "rtn@4", "quantise", (830_000, 0.05, 1.0), seconds=30.0)
        foretold["readings"] += [
            reading("predicted_kld_mean", 0.06, "none", unit="nats/token", low=0.03, high=0.12),
            reading("predicted_seconds", 24.0, "none", unit="s", low=None, high=None),
        ]
        opened.store.results.add(foretold)
        yield opened


@pytest.fixture
def client(service):
    with client_of(service) as opened:
        yield opened


class Stage:
    """Plays the search itself: each step goes on when it is told to."""

    def __init__(self):
        self.go, self.widths = threading.Semaphore(0), []

    def __call__(self, service, budget, model, *, width, watch, owner):
        self.widths.append(width)
        watch("8 candidates on tier smoke")
        self.go.acquire(timeout=20)
        watch("2 candidates on tier quick")
        if budget == "1 kB":
            raise OutOfReachError("Nothing holds this model in 1 kB.")
        return Solution(Recommendation(()), (), 3.5, "cq-1 quick", "aaaa")


@pytest.fixture
def stage(monkeypatch):
    played = Stage()
    monkeypatch.setattr("backend.searching.solve", played)
    return played


def settled(client):
    for _ in range(400):
        now = client.get(f"{PREFIX}/search").json()
        if now["state"] not in ("running", "stopping"):
            return now
        time.sleep(0.02)
    raise TimeoutError(now)


def test_a_budget_is_answered_with_values(client):
    found = client.get(f"{PREFIX}/recommend", params={"budget": "825 kB"}).json()
    assert [one["candidate"]["run_id"] for one in found["choices"]] == [MIDDLE, SMALL]
    assert found["binding"] == {"metric": "resident_bytes", "side": "most", "bound": 825_000}
    refused = client.get(f"{PREFIX}/recommend", params={"budget": "much"})
    assert refused.status_code == 400
    assert "6 GB" in refused.json()["error"]


def test_the_page_answers_in_words(client):
    found = client.get("/page/answer", params={"budget": "825 kB"}).json()
    assert found["choices"][0]["recipe"] == "gptq@4"
    assert "820 kB" in found["choices"][0]["text"]
    assert "least divergence of 2 runs" in found["choices"][0]["reason"]
    assert found["binding"] == "Resident memory at most 825 kB"
    assert found["changes"][0]["run_id"] == DENSE
    assert "two cores" in found["origin"] or "2 cores" in found["origin"]


def test_what_nothing_meets_gets_the_nearest_and_what_cannot_be_read_a_sentence(client):
    found = client.get("/page/answer", params={"budget": "350 kB"}).json()
    assert found["choices"] == []
    assert found["nearest"]["run_id"] == SMALL
    assert "at most 350 kB, with 2 times as much" in found["nearest"]["reason"]
    assert "6 GB" in client.get("/page/answer", params={"budget": "much"}).json()["error"]


def test_how_surely_each_run_stands_comes_on_request(client):
    plain = client.get("/page/figure", params={"model": "default"}).json()
    judged = client.get("/page/figure", params={"model": "default", "judged": "true"}).json()
    assert plain["standing"] == ""
    assert "of the square" in judged["standing"]
    words = [
        text
        for trace in judged["figure"]["data"]
        if trace.get("meta", {}).get("role") == "dots"
        for text in trace["hovertext"]
    ]
    assert sum("of draws" in text for text in words) >= 3


def test_what_was_not_run_is_drawn_as_expected_on_request(client):
    view = client.get("/page/figure", params={"model": "default", "expected": "true"}).json()
    (dots,) = [
        trace for trace in view["figure"]["data"] if trace.get("meta", {}).get("role") == "expected"
    ]
    assert view["expected"] == len(dots["x"]) > 0
    assert not any("<b>gptq@4</b>" in text for text in dots["hovertext"])


def test_standing_and_summary_are_computed_once_until_there_are_more_runs(
    service, client, monkeypatch
):
    wanted = {"model": "default", "judged": "true", "x": "footprint_bytes"}
    first = client.get("/page/figure", params=wanted).json()
    monkeypatch.setattr("backend.standing.judge", None)
    assert client.get("/page/figure", params=wanted).json() == first


def test_a_card_tells_what_was_expected_beside_what_came(client):
    rows = {one["title"]: one for one in client.get(f"/page/card/{'b' * 16}").json()["graded"]}
    quality = rows["Expected KL divergence"]
    assert (quality["expected"], quality["measured"]) == ("0.0600 nats/token", "0.0500 nats/token")
    assert quality["error"] == "+20 %"
    assert rows["Expected time to the result"]["error"] == "-20 %"
    assert client.get(f"/page/card/{MIDDLE}").json()["graded"] == []


def test_a_search_is_begun_watched_and_answers(client, stage):
    assert client.get(f"{PREFIX}/search").json()["state"] == "none"
    begun = client.post(f"{PREFIX}/search", json={"budget": "900 kB"})
    assert begun.status_code == 202
    again = client.post(f"{PREFIX}/search", json={"budget": "900 kB"})
    assert again.json()["state"] == "running"
    other = client.post(f"{PREFIX}/search", json={"budget": "800 kB"})
    assert other.status_code == 403
    assert "900 kB" in other.json()["error"]
    stage.go.release()
    done = settled(client)
    assert done["state"] == "done"
    assert done["lines"] == ["8 candidates on tier smoke", "2 candidates on tier quick"]
    assert (done["protocol"], done["hardware"], done["seconds"]) == ("cq-1 quick", "aaaa", 3.5)
    assert len(stage.widths) == 1


def test_a_search_ends_between_rungs_when_it_is_stopped(client, stage):
    client.post(f"{PREFIX}/search", json={"budget": "900 kB"})
    assert client.request("DELETE", f"{PREFIX}/search").json()["state"] == "stopping"
    stage.go.release()
    assert settled(client)["state"] == "stopped"


def test_a_search_that_finds_nothing_says_why(client, stage):
    stage.go.release()
    client.post(f"{PREFIX}/search", json={"budget": "1 kB"})
    found = settled(client)
    assert found["state"] == "failed"
    assert "1 kB" in found["reason"]
    assert client.post(f"{PREFIX}/search", json={"budget": "much"}).status_code == 400


def test_in_public_a_search_is_narrow_and_its_owners(service, stage):
    mine, other = {"X-Visitor": "a" * 32}, {"X-Visitor": "b" * 32}
    with client_of(service, IN_PUBLIC) as public:
        wish = {"budget": "900 kB"}
        refused = public.post(f"{PREFIX}/search", json=wish | {"model": "owner/name"})
        assert refused.status_code == 403
        public.post(f"{PREFIX}/search", json=wish, headers=mine)
        assert stage.widths == [IN_PUBLIC.per_owner]
        assert public.request("DELETE", f"{PREFIX}/search", headers=other).status_code == 403
        assert public.request("DELETE", f"{PREFIX}/search", headers=mine).status_code == 200
        stage.go.release()
        assert settled(public)["state"] == "stopped"


def test_a_search_that_breaks_off_does_not_stay_under_way(service, monkeypatch):
    broken = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: broken.set())
    monkeypatch.setattr("backend.searching.solve", None)
    searches = Searches(service)
    searches.start("900 kB", "default")
    assert broken.wait(10)
    assert searches.now().state == "failed"


def test_a_folder_goes_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "tales").mkdir()
    monkeypatch.chdir(tmp_path / "tales")
    with Store(tmp_path / "home") as store:
        advice = Advice(store)
        assert advice.named(str(tmp_path / "tales")) == "tales"
        assert advice.named(".") == "tales"
        assert advice.named("owner/name@main") == "owner/name"
