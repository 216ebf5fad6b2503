"""A file of results sent over HTTP: taken in whole, refused in sentences, not at all in public."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

from backend import rest
from backend.limits import IN_PUBLIC
from backend.service import Service
from tests.asking import client_of
from tests.page_results import MIDDLE, RUNS, SMALL, SOUND, fill, packed, result
from ui import guard

V1 = rest.PREFIX
NEW, WRONG = "b" * 16, "c" * 16
ZIP = {"Content-Type": rest.ZIP}


@pytest.fixture
def here(tmp_path):
    with Service(fill(tmp_path / "home"), run_jobs=False) as opened:
        yield opened


@pytest.fixture
def send(here):
    with client_of(here) as client:
        yield lambda body, **headers: client.post(
            f"{V1}/import", content=body, headers=ZIP | headers
        )


def test_a_file_tells_what_came_what_was_here_and_why_what_was_refused(send, here):
    new = result(NEW, "rtn@5", "quantise", (900_000, 0.01, 1.0))
    known = here.run(SMALL)
    same = json.loads((here.store.results.folder / f"{SMALL}.json").read_text())
    other = json.loads((here.store.results.folder / f"{MIDDLE}.json").read_text())
    body = packed(
        new,
        same,
        other | {"seconds": 99.0},
        **{WRONG: json.dumps(new | {"seconds": "x", "run_id": WRONG})},
    )
    found = send(body).json()
    assert (found["added"], found["conflicting"]) == ([NEW], [MIDDLE])
    assert sorted(found["known"]) == sorted([SMALL, MIDDLE])
    (reason,) = found["refused"]
    assert reason.startswith(f"{WRONG}.json: `seconds` of the result must be")
    assert here.run(NEW).recipe == "rtn@5"
    assert here.run(SMALL) == known
    assert here.run(MIDDLE).seconds != 99.0


def test_what_one_copy_exports_another_takes_in(send, tmp_path):
    with (
        Service(tmp_path / "other", run_jobs=False) as other,
        client_of(other) as client,
    ):
        whole = client.get(f"{V1}/export").content
        count = len(other.runs())
    first, again = send(whole).json(), send(whole).json()
    assert len(first["added"]) == count > 0
    assert (len(again["added"]), len(again["known"])) == (0, count)
    assert first["refused"] == again["refused"] == []


def test_views_that_no_copy_keeps_do_not_keep_the_runs_away(send):
    run = result(NEW, "rtn@5", "quantise", (9e5, 0.01, 1.0))
    for shares in (5, None, [{"x": "y" * 20_000}]):
        found = send(packed(run, manifest=SOUND | {"shares": shares})).json()
        assert found["added"] + found["known"] == [NEW]


@pytest.mark.parametrize("manifest", [{"format": 2}, [], 5])
def test_a_manifest_of_another_format_is_refused(send, manifest):
    answer = send(packed(manifest=manifest))
    assert answer.status_code == 400
    assert "This file was exported in a format" in answer.json()["error"]


@pytest.mark.security
@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"not a zip", "This file holds no exported results."),
        (b"", "This file holds no exported results."),
        (packed()[:60], "This file holds no exported results."),
    ],
    ids=["words", "nothing", "a part"],
)
def test_what_is_no_export_is_refused_in_a_sentence(send, body, told):
    answer = send(body)
    assert answer.status_code == 400
    assert answer.json() == {"error": told}


@pytest.mark.security
def test_a_deep_manifest_is_refused_in_a_sentence(send):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as file:
        file.writestr("manifest.json", "[" * 100_000)
    assert send(body.getvalue()).json() == {"error": "This file holds no exported results."}


@pytest.mark.security
def test_a_file_that_unpacks_to_more_than_may_lie_on_the_disk_is_refused(send, here, monkeypatch):
    monkeypatch.setattr("backend.store.exchange.UNPACKED_LIMIT", 100_000)
    body = packed(**{NEW: " " * 60_000, WRONG: " " * 60_000})
    assert len(body) < 2_000
    assert "120,0" in send(body).json()["error"]
    assert len(here.runs()) == len(RUNS) + 1


@pytest.mark.security
def test_a_page_of_another_site_can_send_no_results(send):
    """A browser sends a body of these kinds for any page; another one it asks about before."""
    for kind in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded"):
        answer = send(packed(), **{"Content-Type": kind})
        assert answer.status_code == 400
        assert "application/zip" in answer.json()["error"]


@pytest.mark.security
def test_a_file_beyond_the_limit_is_refused_declared_or_not_and_other_bodies_stay_small(
    send, monkeypatch
):
    monkeypatch.setitem(guard.LARGE, f"{V1}/import", 3 * 2**20)
    large = b"x" * (3 * 2**20 + 1)
    assert send(large).json() == {"error": "A request here takes at most 3 MiB."}
    pieces = (large[at : at + 2**20] for at in range(0, len(large), 2**20))
    assert send(pieces).status_code in (400, 413)
    assert send(b"x" * (2 * guard.BODY_LIMIT)).status_code == 400  # no zip, yet not too large


@pytest.mark.security
def test_in_public_no_results_are_taken_in_and_the_page_offers_none(here):
    body = packed(result(NEW, "rtn@5", "quantise", (900_000, 0.01, 1.0)))
    with client_of(here, IN_PUBLIC) as public:
        answer = public.post(f"{V1}/import", content=body, headers=ZIP)
        assert answer.status_code == 403
        assert "only what it measured itself" in answer.json()["error"]
        assert public.get("/page/start").json()["largest"] == 0
    assert NEW not in set(here.runs()["run_id"])
