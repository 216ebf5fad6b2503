"""What a page that anybody may visit refuses: other models, long texts, many jobs, others' jobs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from backend import rest
from backend.jobs.launchers import assignment
from backend.limits import AT_HOME, IN_PUBLIC, LimitError
from backend.opening import settings
from backend.service import Service
from backend.sources import EMBEDDED
from tests.asking import client_of
from tests.page_results import fill

V1 = rest.PREFIX


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    with (
        Service(
            fill(tmp_path_factory.mktemp("home")), run_jobs=False, **settings(IN_PUBLIC)
        ) as opened,
        client_of(opened, IN_PUBLIC) as asked,
    ):
        yield asked


def test_in_public_only_the_embedded_model_is_compressed(public):
    answer = public.post(f"{V1}/jobs", json={"recipe": "rtn@4", "model": "owner/name"})
    assert answer.status_code == 403
    assert "default" in answer.json()["error"]


@pytest.mark.parametrize(("method", "status"), [("GET", 404), ("DELETE", 405)])
def test_what_the_api_does_not_have_is_told_in_a_sentence(public, method, status):
    answer = public.request(method, f"{V1}/nothing" if status == 404 else f"{V1}/methods")
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert public.get(answer.json()["error"].split("; ")[1].split()[0]).status_code == 200
    assert "error" not in public.get("/nothing-of-the-page").json()


@pytest.mark.security
def test_in_public_a_job_is_its_owners(public):
    mine, other = {"X-Visitor": "a" * 32}, {"X-Visitor": "b" * 32}
    wish = {"recipe": "rtn@4", "tier": "smoke"}
    job_id = public.post(f"{V1}/jobs", json=wish, headers=mine).json()["job_id"]
    for stranger in ({}, other):
        assert not public.get(f"{V1}/jobs", headers=stranger).json()["jobs"][0]["may_change"]
        refused = public.post(f"{V1}/jobs/{job_id}/cancel", headers=stranger)
        assert refused.status_code == 403
    assert public.get(f"{V1}/jobs/{job_id}", headers=mine).json()["may_change"]
    assert public.post(f"{V1}/jobs/{job_id}/cancel", headers=mine).status_code == 200


@pytest.mark.security
@pytest.mark.parametrize(
    ("there", "nowhere"),
    [
        (str(EMBEDDED), f"{EMBEDDED}-not"),  # a folder that holds a model
        ("/usr", "/nowhere"),
        ("~", "~nobody"),
        ("docs", "nowhere"),
        ("data/model", "data/nothing"),  # reads as a name on the Hub too
    ],
)
def test_in_public_nobody_learns_whether_a_folder_exists(public, there, nowhere, monkeypatch):
    """Every way to name a model answers the same for both, the name aside."""
    monkeypatch.chdir(EMBEDDED.parents[1])
    wish = {"recipes": ["rtn@4", "gptq"], "budgets": ["4 bits"]}

    def told(model):
        answers = [
            public.get(f"{V1}/estimate", params={"recipe": "rtn@4", "model": model}),
            public.get("/page/answer", params={"budget": "900 kB", "model": model}),
            public.get("/page/figure", params={"model": model, "expected": "true"}),
            public.post("/page/ahead", json=wish | {"model": model}),
            public.post(f"{V1}/jobs", json={"recipe": "rtn@4", "model": model}),
            public.post(f"{V1}/sweep", json={"methods": ["rtn"], "budgets": [4], "model": model}),
            public.post(f"{V1}/search", json={"budget": "900 kB", "model": model}),
        ]
        return [
            (one.status_code, one.text.replace(json.dumps(model)[1:-1], "NAME")) for one in answers
        ]

    assert told(there) == told(nowhere)
    assert (told(there)[0][0] == 200) == (there == "data/model")


@pytest.mark.security
@pytest.mark.parametrize(
    ("letters", "tokens", "status"), [(1001, 8, 403), (8, 129, 403), (1000, 128, 404)]
)
def test_in_public_texts_are_short(public, letters, tokens, status):
    """What is within the limits comes as far as the run, which is not known."""
    wish = {"runs": ["0" * 16], "prompt": "x" * letters, "new_tokens": tokens}
    told = public.post(f"{V1}/writings", json=wish)
    assert told.status_code == status
    assert (status == 404) != ("up to 128 tokens after up to 1,000 letters" in told.text)


@pytest.mark.security
def test_in_public_a_job_is_bounded_as_its_assignment_says(tmp_path):
    with Service(fill(tmp_path), run_jobs=False, bounds=IN_PUBLIC.job) as service:
        service.submit("rtn@4")
        with service.store.database.reading() as cursor:
            (text,) = cursor.execute("SELECT spec FROM jobs").fetchone()
    told = assignment(json.loads(text), (), None)
    assert (told["timeout_seconds"], told["silence_seconds"]) == (300, 30)
    assert told["spec"]["data_limit_bytes"] == 8 * 2**30
    assert told["spec"]["artefacts_limit_bytes"] == 10**10


@pytest.mark.security
def test_in_public_one_visitor_has_few_jobs(public):
    mine = {"X-Visitor": "c" * 32}
    codes = [
        public.post(
            f"{V1}/jobs", json={"recipe": f"rtn@{bits}", "tier": "smoke"}, headers=mine
        ).status_code
        for bits in (3, 4, 5)
    ]
    assert codes == [202, 202, 403]


@pytest.mark.security
def test_a_database_beyond_its_limit_takes_no_more_jobs(tmp_path):
    with Service(fill(tmp_path), run_jobs=False) as service:
        size = service.store.database.size
        replace(AT_HOME, database=size).admit(service, "default", 1, "")
        with pytest.raises(LimitError, match="export what is to be kept"):
            replace(AT_HOME, database=size - 1).admit(service, "default", 1, "")
