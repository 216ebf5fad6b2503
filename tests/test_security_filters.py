"""Whatever a visitor writes into a filter is a value: it chooses among rows, and that is all."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from backend import rest
from backend.service import Filter, Service
from tests.page_results import fill

pytestmark = pytest.mark.security
SIDES = ("model", "protocol", "hardware_id", "family")
EVIL = (
    "'", '"', "';--", "') OR 1=1 --", "'; DROP TABLE results; --", "default' UNION SELECT 1 --",
    "$1", "?", "%", "_", "*", "\\", "\x00", "NULL", "[default]", "{default}", "default,default",
    "read_text('/etc/passwd')", "\u202e", "\ud800", "x" * 5_000,
)  # fmt: skip
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(fill(tmp_path_factory.mktemp("filters")), run_jobs=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(service):
    return service.runs().to_dict("records")


@pytest.fixture(scope="module")
def client(service):
    with TestClient(FastAPI(**rest.serving(service)), raise_server_exceptions=False) as opened:
        yield opened


def words(*known):
    """Nothing, what is there, what is hostile, or any text at all."""
    one = st.one_of(st.sampled_from(known), st.sampled_from(EVIL), st.text(max_size=40))
    return st.lists(one, max_size=3).map(tuple)


FILTERS = st.tuples(
    words("default"), words("cq-2", "cq"), words("aaaa"), words("quantise", "dense")
)


def expected(rows, sides):
    return [
        row
        for row in rows
        if all(not side or row[name] in side for name, side in zip(SIDES, sides, strict=True))
    ]


@QUICK
@given(FILTERS)
@example((("default",), (), (), ("quantise",)))
@example((EVIL[:3], EVIL[3:6], EVIL[6:9], EVIL[9:12]))
def test_a_filter_chooses_exactly_the_rows_that_hold_its_words(service, rows, sides):
    found = service.runs(Filter(*sides))
    assert sorted(found["run_id"]) == sorted(row["run_id"] for row in expected(rows, sides))
    points = service.frontier(chosen=Filter(*sides))
    assert set(points["run_id"]) <= set(found["run_id"])
    assert service.store.results.count() == len(rows)


@QUICK
@given(FILTERS, st.one_of(st.sampled_from(EVIL), st.text(max_size=40)))
def test_over_http_no_filter_is_an_error_of_the_program(client, sides, axis):
    names = ("model", "protocol", "hardware", "family")
    asked = [
        (name, one.encode("utf-8", "replace").decode())
        for name, side in zip(names, sides, strict=True)
        for one in side
    ]
    assert client.get("/api/v1/runs", params=asked).status_code == 200
    odd = axis.encode("utf-8", "replace").decode()
    answer = client.get("/api/v1/frontier", params=[*asked, ("x", odd)])
    assert answer.status_code in (200, 404)
    assert answer.status_code == 200 or "No metric is called" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("share", '{"view": {"say": "\\ud800"}}'),
        ("share", '{"view": {"\\udfff": ""}}'),
        ("jobs", '{"recipe": "rtn@4", "budget": {"\\ud800": 1}}'),
        ("jobs", '{"recipe": "\\ud800"}'),
        ("sweep", '{"methods": ["\\ud800"], "budgets": [3]}'),
        ("writings", '{"runs": ["\\ud800"], "prompt": "x"}'),
    ],
)
def test_half_a_letter_is_refused_in_words(client, path, text):
    headers = {"Content-Type": "application/json"}
    answer = client.post(f"/api/v1/{path}", content=text, headers=headers)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]
