"""REST answers what the service knows, refuses in sentences, and shuts what must stay shut."""

from __future__ import annotations

import io
import zipfile

import pytest

from backend import rest
from backend.service import Service
from tests.asking import client_of
from tests.page_results import (
    BEATEN,
    BROKEN,
    DENSE,
    MIDDLE,
    RUNS,
    SMALL,
    fill,
)
from ui import routes
from ui.guard import BODY_LIMIT

V1 = rest.PREFIX


def test_the_program_says_that_it_is_well(client):
    assert client.get("/health").json()["status"] == "ok"


def test_methods_metrics_and_axes_are_listed(client):
    keys = {one["key"] for one in client.get(f"{V1}/methods").json()}
    assert {"gptq", "rtn"} <= keys
    metrics = {one["name"]: one for one in client.get(f"{V1}/metrics").json()}
    assert metrics["kld_mean"]["direction"] == "lower"
    axes = {one["name"] for one in client.get(f"{V1}/axes").json()}
    assert {"resident_bytes", "kld_mean"} <= axes


def test_the_frontier_marks_what_none_dominates(client):
    answer = client.get(f"{V1}/frontier", params={"model": "default"}).json()
    standing = {point["run_id"]: point["on_frontier"] for point in answer["points"]}
    expected = {DENSE: True, SMALL: True, MIDDLE: True, BEATEN: False, BROKEN: False}
    assert standing == expected


def test_filters_narrow_the_frontier(client):
    asked = {"model": "default", "family": ["dense", "factorise"]}
    points = client.get(f"{V1}/frontier", params=asked).json()["points"]
    assert {point["run_id"] for point in points} == {DENSE, BEATEN}


def test_runs_are_listed_with_the_metrics_named(client):
    rows = client.get(f"{V1}/runs", params={"metric": "kld_mean"}).json()
    assert {row["run_id"]: row["kld_mean"] for row in rows}[MIDDLE] == 0.02


def test_a_run_is_told_whole(client):
    run = client.get(f"{V1}/runs/{MIDDLE}").json()
    assert run["recipe"] == "gptq@4"
    assert len(run["readings"]) == 7
    assert len(run["generations"]) == 2


@pytest.mark.parametrize(
    ("path", "status", "part"),
    [
        (f"{V1}/runs/ffff", 404, "ffff"),
        (f"{V1}/frontier?x=nonsense", 404, "nonsense"),
        (f"{V1}/frontier?x=kld_meen", 404, "kld_mean"),
        (f"{V1}/estimate?recipe=gptq@0.1", 400, "1.25"),
        (f"{V1}/estimate?recipe=gptk@4", 404, "gptq"),
        (f"{V1}/estimate?recipe=gptq@4&model=no/../such", 400, "no model"),
        (f"{V1}/jobs/nothing", 400, "nothing"),
        (f"{V1}/shares/0123456789abcdef", 404, "name"),
        (f"{V1}/runs/{MIDDLE}/artefact", 404, "recipe"),
        ("/page/card/zz", 404, "zz"),
        ("/page/compare?runs=zz", 404, "zz"),
        ("/page/figure?x=nonsense", 404, "nonsense"),
    ],
)
def test_a_refusal_is_one_sentence(client, path, status, part):
    answer = client.get(path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert part in answer.json()["error"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"recipe": 4},
        {"recipe": "gptq@4", "tier": "endless"},
        {"recipe": "gptq@4", "more": 1},
        {"recipe": "x" * 3000},
        [1],
        "text",
    ],
)
def test_a_request_of_another_form_is_refused_in_one_sentence(client, body):
    answer = client.post(f"{V1}/jobs", json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error"}


def test_what_did_not_change_is_not_sent_again(client):
    for path in (f"{V1}/jobs", f"{V1}/frontier", "/page/start", "/page/figure"):
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
        assert not again.content


def test_a_job_is_queued_watched_and_cancelled(tmp_path):
    with Service(fill(tmp_path), run_jobs=False) as service, client_of(service) as client:
        queued = client.post(f"{V1}/jobs", json={"recipe": "rtn@4", "tier": "smoke"})
        assert queued.status_code == 202
        assert queued.json()["outcome"] == "queued"
        again = client.post(f"{V1}/jobs", json={"recipe": "rtn@4", "tier": "smoke"})
        assert again.json()["outcome"] == "joined"
        job_id = queued.json()["job_id"]
        listed = client.get(f"{V1}/jobs")
        assert [job["state"] for job in listed.json()["jobs"]] == ["queued"]
        assert "owner" not in listed.json()["jobs"][0]
        assert client.get(f"{V1}/jobs/{job_id}").json()["recipe"] == "rtn@4"
        assert client.get(f"{V1}/jobs/{job_id}/events").status_code == 200
        assert client.get(f"{V1}/jobs/{job_id}/log").json() == {"log": ""}
        assert client.post(f"{V1}/jobs/{job_id}/cancel").json()["state"] == "cancelled"
        changed = client.get(f"{V1}/jobs", headers={"If-None-Match": listed.headers["etag"]})
        assert changed.status_code == 200
        assert client.post(f"{V1}/jobs/{job_id}/retry").json()["outcome"] == "queued"


def test_a_sweep_says_what_it_leaves_out(tmp_path):
    with Service(fill(tmp_path), run_jobs=False) as service, client_of(service) as client:
        wish = {"methods": ["gptq"], "budgets": [0.5, 4], "tier": "smoke"}
        done = client.post(f"{V1}/sweep", json=wish).json()
    assert done["recipes"] == ["dense", "gptq@4"]
    assert [one["recipe"] for one in done["refusals"]] == ["gptq@0.5"]


def test_a_view_is_kept_under_a_short_name(client):
    view = {"run": MIDDLE, "x": "resident_bytes"}
    slug = client.post(f"{V1}/share", json={"view": view}).json()["slug"]
    assert client.get(f"{V1}/shares/{slug}").json() == view


def test_all_results_can_be_taken_along(client):
    names = zipfile.ZipFile(io.BytesIO(client.get(f"{V1}/export").content)).namelist()
    assert {f"results/{run_id}.json" for run_id, *_ in RUNS} <= set(names)


def test_the_description_names_every_route_of_ours_and_no_other(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert all(path == "/health" or path.startswith(V1) for path in paths)
    for part in ("jobs", "sweep", "frontier", "runs/{run_id}", "share", "export", "estimate"):
        assert f"{V1}/{part}" in paths
    assert all(one.get("description") for path in paths.values() for one in path.values())


def test_the_list_of_jobs_tells_only_what_changed_since(tmp_path):
    with Service(fill(tmp_path), run_jobs=False) as service, client_of(service) as client:
        ids = [
            client.post(f"{V1}/jobs", json={"recipe": f"rtn@{bits}", "tier": "smoke"}).json()[
                "job_id"
            ]
            for bits in (3, 4, 5)
        ]

        def listed(**asked):
            found = client.get(f"{V1}/jobs", params=asked).json()
            assert found["count"] == 3
            return found["revision"], [job["job_id"] for job in found["jobs"]]

        revision, found = listed()
        assert found == ids[::-1], "newest first"
        assert listed(since=revision) == (revision, [])
        client.post(f"{V1}/jobs/{ids[0]}/cancel")
        client.post(f"{V1}/jobs/{ids[2]}/cancel")
        newer, found = listed(since=revision)
        assert newer > revision
        assert found == [ids[2], ids[0]]
        assert listed(limit=1) == (newer, [ids[2], ids[1]]), "one that is over, all others"
        assert listed(limit=0) == (newer, [ids[1]])
        # The board and the store say the same.
        assert {job.job_id: str(job.state) for job in service.jobs()} == {
            job["job_id"]: job["state"] for job in client.get(f"{V1}/jobs").json()["jobs"]
        }


def test_the_list_of_jobs_asks_the_store_only_after_a_change(tmp_path, monkeypatch):
    with Service(fill(tmp_path), run_jobs=False) as service, client_of(service) as client:
        client.post(f"{V1}/jobs", json={"recipe": "rtn@4", "tier": "smoke"})
        (job,) = client.get(f"{V1}/jobs").json()["jobs"]
        assert job["expected"] > 0

        def never(*_, **__):
            raise AssertionError("nothing has changed")

        for name in ("jobs", "estimate", "revision"):
            monkeypatch.setattr(service, name, never)
        assert client.get(f"{V1}/jobs").json()["jobs"] == [job]


@pytest.mark.security
@pytest.mark.parametrize(
    "path", ["/gradio_api/upload", "/gradio_api/proxy=http://127.0.0.1/", "/upload"]
)
def test_nothing_is_uploaded_or_fetched_for_others(client, path):
    assert client.post(path, content=b"x").status_code == 403


@pytest.mark.security
def test_a_large_body_is_refused_declared_or_not(client):
    large = b"x" * (BODY_LIMIT + 1)
    assert client.post(f"{V1}/jobs", content=large).status_code == 413
    pieces = (large[:40_000] for _ in range(3))
    assert client.post(f"{V1}/jobs", content=pieces).status_code in (400, 413)
    assert client.get("/health").status_code == 200


def test_every_answer_carries_its_guards(client):
    for path in ("/health", "/nothing", f"{V1}/jobs", "/page/static/page.js"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]


def test_a_file_of_the_page_is_sent_packed_once_and_whole_to_whoever_cannot_unpack(client):
    source = (routes.STATIC / "page.js").read_bytes()
    packed = client.get("/page/static/page.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(source)
    plain = client.get("/page/static/page.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content == source
    assert packed.headers["content-type"].startswith("text/javascript")
    again = client.get("/page/static/page.js", headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    library = client.get("/page/static/vendor/plotly-basic.min.js").headers
    assert "immutable" in library["cache-control"]


def test_what_a_wish_will_take_is_looked_up_once(client, service, monkeypatch):
    wish = {"recipes": ["rtn"], "budgets": ["4 bits"]}
    first = client.post("/page/ahead", json=wish).json()
    assert first["jobs"] == 1
    monkeypatch.setattr(service.advice, "fit", lambda *_: pytest.fail("it is known already"))
    assert client.post("/page/ahead", json=wish).json() == first


@pytest.mark.parametrize(
    "path", ["..%2f..%2fapp.py", "%2e%2e/%2e%2e/app.py", "..%5capp.py", "/etc/passwd"]
)
def test_files_outside_the_page_are_out_of_reach(client, path):
    assert client.get(f"/page/static/{path}").status_code >= 400
