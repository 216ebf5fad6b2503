"""Newer results that come along take the place of those that came along, and of no others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backend import faults
from backend.service import FIRST_RESULTS, Service
from backend.store.exchange import export_results, import_results
from backend.store.shipped import RECORD, take_shipped
from backend.store.store import Store
from tests.result_documents import document, reading

ROOT = Path(__file__).parents[1]
A, B, C, D = (letter * 16 for letter in "abcd")
SPRING, SUMMER, AUTUMN = (f"2026-0{month}-01T10:00:00+00:00" for month in (3, 6, 9))


BROKEN_OFF = """
import os, sys
from pathlib import Path
from backend.store.shipped import take_shipped
from backend.store.store import Store

home, shipped, within, variable = sys.argv[1:]
with Store(Path(home)) as store:
    whole = getattr(store.results, within)

    def armed(*given):
        os.environ[variable] = os.environ["ARMED_LATER"]
        return whole(*given)

    setattr(store.results, within, armed)
    take_shipped(store, Path(shipped))
"""


def made(run_id, created, kld):
    return document(run_id, [reading("kld", kld), reading("bytes", 1000)], created=created)


def release(folder, *documents):
    """What an export of these runs is, in the place of any that was there."""
    shutil.rmtree(folder, ignore_errors=True)
    with Store(folder.with_name(f"{folder.name}-made")) as store:
        for one in documents:
            store.results.add(one)
        export_results(store.results, store.shares, folder)
    shutil.rmtree(folder.with_name(f"{folder.name}-made"))
    return folder


def kld(store):
    """By run: the number of its file, which the index must hold too."""
    frame = store.results.runs(metrics=["kld"]).set_index("run_id")["kld"].to_dict()
    assert frame == {one: store.results.run(one).reading("kld").value for one in frame}
    assert set(frame) == {path.stem for path in store.results.folder.glob("*.json")}
    return frame


@pytest.fixture
def shipped(tmp_path):
    return release(tmp_path / "shipped", made(A, SPRING, 1.0), made(B, SPRING, 2.0))


@pytest.fixture
def home(tmp_path, shipped):
    """A home that took in the spring's release."""
    with Store(tmp_path / "home") as store:
        take_shipped(store, shipped)
    return tmp_path / "home"


def newer(shipped):
    """The summer's: A again, with C, without B."""
    return release(shipped, made(A, SUMMER, 10.0), made(C, SUMMER, 30.0))


def test_a_newer_run_takes_the_place_of_a_shipped_one_and_a_dropped_one_stays(home, shipped):
    newer(shipped)
    with Store(home) as store:
        assert kld(store) == {A: 1.0, B: 2.0}
        version = store.results.version()
        assert take_shipped(store, shipped) == (A,)
        assert kld(store) == {A: 10.0, B: 2.0, C: 30.0}
        assert store.results.version() != version
        assert len(store.results.readings([A])) == 2
        assert len(store.results.generations([A])) == 2
    release(shipped, made(A, AUTUMN, 100.0), made(B, AUTUMN, 200.0))
    with Store(home) as store:
        assert take_shipped(store, shipped) == (A, B)
        assert kld(store) == {A: 100.0, B: 200.0, C: 30.0}


def test_an_older_release_takes_nothing_back_and_what_it_found_is_still_renewed(home, shipped):
    newer(shipped)
    with Store(home) as store:
        take_shipped(store, shipped)
        release(shipped, made(A, SPRING, 1.0))
        assert take_shipped(store, shipped) == ()
        assert kld(store)[A] == 10.0
        release(shipped, made(A, AUTUMN, 100.0))
        assert take_shipped(store, shipped) == (A,)


def test_times_are_compared_as_moments(tmp_path, home, shipped):
    release(shipped, made(A, "2026-03-01T12:30:00+03:00", 5.0), made(B, SUMMER, 20.0))
    with Store(home) as store:
        assert take_shipped(store, shipped) == (B,), "9:30 in UTC is before 10:00"


def test_what_was_imported_from_elsewhere_stays(tmp_path, home, shipped):
    other = release(tmp_path / "other", made(C, SPRING, 3.0))
    with Store(home) as store:
        import_results(store.results, store.shares, other)
        newer(shipped)
        assert take_shipped(store, shipped) == (A,)
        assert kld(store)[C] == 3.0
        release(shipped, made(C, AUTUMN, 300.0))
        assert take_shipped(store, shipped) == ()
        assert kld(store)[C] == 3.0


@pytest.mark.parametrize(("state", "stays"), [("done", True), ("running", True), ("failed", False)])
def test_without_a_record_the_jobs_tell_what_was_made_here(home, shipped, state, stays):
    (home / "results" / RECORD).unlink()
    newer(shipped)
    with Store(home) as store:
        with store.database.writing() as cursor:
            cursor.execute(
                "INSERT INTO jobs VALUES ('j', ?, '', '', '', '', '{}', ?, 1, 1, 0, 0, NULL, NULL,"
                " '', false, 0, 0, '', 0, 0, 1)",
                [A, state],
            )
        assert take_shipped(store, shipped) == (() if stays else (A,))
        assert kld(store) == {A: 1.0 if stays else 10.0, B: 2.0, C: 30.0}


def test_a_home_of_other_results_is_left_alone_but_where_results_lie_elsewhere(tmp_path, shipped):
    with Store(tmp_path / "own") as store:
        store.results.add(made(D, SPRING, 4.0))
        for _ in range(2):
            assert take_shipped(store, shipped) == ()
            assert kld(store) == {D: 4.0}
    with Store(tmp_path / "bucket") as store:
        store.results.add(made(D, SPRING, 4.0))
        take_shipped(store, shipped, always=True)
        assert kld(store) == {A: 1.0, B: 2.0, D: 4.0}


def test_a_start_that_finds_the_same_manifest_reads_nothing_else(home, shipped, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("nothing is to be imported")

    monkeypatch.setattr("backend.store.shipped.import_results", refuse)
    shutil.rmtree(shipped / "results")
    with Store(home) as store:
        commits = store.database.commits
        assert take_shipped(store, shipped) == ()
        assert store.database.commits == commits
    newer(shipped)
    with Store(home) as store, pytest.raises(AssertionError, match="nothing is to be"):
        take_shipped(store, shipped)


def test_a_manifest_is_another_where_a_document_is(tmp_path):
    one = release(tmp_path / "one", made(A, SPRING, 1.0))
    other = release(tmp_path / "other", made(A, SPRING, 2.0))
    again = release(tmp_path / "again", made(A, SPRING, 1.0))
    texts = [(folder / "manifest.json").read_text() for folder in (one, other, again)]
    assert texts[0] == texts[2] != texts[1]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("place", "within"),
    [("store.commit", "renew"), ("result.write", "renew"), ("store.commit", "catch_up")],
)
@pytest.mark.parametrize("manner", ["", " kill"])
def test_a_start_that_is_broken_off_loses_nothing_and_the_next_goes_on(
    tmp_path, home, shipped, place, within, manner
):
    release(shipped, made(A, SUMMER, 10.0), made(B, SUMMER, 20.0))
    (tmp_path / "fault").write_text(place + manner)
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_OFF, str(home), str(shipped), within, faults.ARMED],
        cwd=ROOT,
        env=os.environ | {"ARMED_LATER": str(tmp_path / "fault")},
        check=False,
    )
    assert not (tmp_path / "fault").exists(), "the place was never passed"
    assert done.returncode == (-signal.SIGKILL if manner else 0), "a full disk stops no start"
    with Store(home) as store:
        found = kld(store)
        assert found[A] in (1.0, 10.0)
        assert found[B] in (2.0, 20.0)
        take_shipped(store, shipped)
        assert kld(store) == {A: 10.0, B: 20.0}
        assert [path.name for path in store.results.folder.glob(".*")] == []


def test_a_first_start_that_was_broken_off_goes_on(tmp_path, shipped, monkeypatch):
    with Store(tmp_path / "home") as store:
        store.results.add(made(A, SPRING, 1.0))  # the others had not come yet
    monkeypatch.setattr("backend.service.FIRST_RESULTS", shipped)
    with Service(tmp_path / "home", run_jobs=False) as service:
        assert kld(service.store) == {A: 1.0, B: 2.0}


def test_what_comes_along_is_all_in_its_manifest():
    runs = json.loads((FIRST_RESULTS / "manifest.json").read_text())["runs"]
    assert set(runs) == {path.stem for path in (FIRST_RESULTS / "results").glob("*.json")}
