"""Results travel between copies of the program without loss, and never mix machines."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from backend.store.errors import StoreError
from backend.store.exchange import export_results, import_results
from backend.store.frontier import frontier
from backend.store.store import Store
from tests.result_documents import document

RUN, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def here(tmp_path):
    with Store(tmp_path / "here") as opened:
        yield opened


@pytest.fixture
def there(tmp_path):
    with Store(tmp_path / "there") as opened:
        yield opened


def test_a_round_trip_is_equal(here, there, tmp_path):
    here.results.add(document(RUN))
    here.results.add(document(OTHER, [], generations=[], status="broken"))
    slug = here.shares.keep({"x": "bytes"})
    assert export_results(here.results, here.shares, tmp_path / "out") == 2
    imported = import_results(there.results, there.shares, tmp_path / "out")
    assert imported.added == (RUN, OTHER)
    assert list(there.results.documents()) == list(here.results.documents())
    pd.testing.assert_frame_equal(there.results.runs(), here.results.runs())
    pd.testing.assert_frame_equal(there.results.readings(), here.results.readings())
    assert there.shares.find(slug) == {"x": "bytes"}


def test_a_zip_of_an_export_is_taken_in_and_nothing_else_in_it(here, there, tmp_path):
    here.results.add(document(RUN))
    export_results(here.results, here.shares, tmp_path / "out")
    packed = Path(shutil.make_archive(str(tmp_path / "out"), "zip", tmp_path / "out"))
    outside = document(OTHER)
    with zipfile.ZipFile(packed, "a") as more:
        more.writestr(f"../results/{OTHER}.json", json.dumps(outside))
        more.writestr(f"elsewhere/{OTHER}.json", json.dumps(outside))
    imported = import_results(there.results, there.shares, packed)
    assert imported.added == (RUN,)
    assert imported.refused == ()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("notes.txt", "none")
    with pytest.raises(StoreError, match=r"other\.zip holds no exported results"):
        import_results(there.results, there.shares, tmp_path / "other.zip")


def test_a_zip_that_cannot_be_unpacked_is_refused_in_a_sentence(here, there, tmp_path, monkeypatch):
    here.results.add(document(RUN))
    export_results(here.results, here.shares, tmp_path / "out")
    packed = Path(shutil.make_archive(str(tmp_path / "out"), "zip", tmp_path / "out"))
    whole = packed.read_bytes()
    with zipfile.ZipFile(packed) as read:
        about = read.getinfo(f"results/{RUN}.json")
    body = about.header_offset + 30 + len(about.filename)
    torn = whole[:body] + bytes(16) + whole[body + 16 :]
    listed = whole.index(b"PK\x01\x02")
    locked = bytearray(whole)
    for start in (at for at in range(listed, len(whole)) if whole[at : at + 4] == b"PK\x01\x02"):
        locked[start + 8] |= 1  # says that it is encrypted
    for damaged in (torn, bytes(locked)):
        (tmp_path / "damaged.zip").write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged or has a password"):
            import_results(there.results, there.shares, tmp_path / "damaged.zip")
    monkeypatch.setattr("backend.store.exchange.SIZE_LIMIT", 500)
    with pytest.raises(StoreError, match=rf"{RUN}\.json holds .* may hold 500"):
        import_results(there.results, there.shares, packed)


def test_more_than_are_taken_in_at_once_all_come(here, there, tmp_path, monkeypatch):
    monkeypatch.setattr("backend.store.exchange.TOGETHER", 2)
    runs = tuple(f"{number:016x}" for number in range(1, 6))
    for run_id in runs:
        here.results.add(document(run_id))
    export_results(here.results, here.shares, tmp_path / "out")
    (tmp_path / "out" / "results" / f"{runs[2]}.json").write_text("{")
    there.results.add(document(runs[3]))
    before = there.results._database.commits
    found = import_results(there.results, there.shares, tmp_path / "out")
    assert found.added == (runs[0], runs[1], runs[4])
    assert found.known == (runs[3],)
    assert len(found.refused) == 1
    assert there.results._database.commits == before + 3, "a transaction for each two"
    assert [one["run_id"] for one in there.results.documents()] == [*runs[:2], *runs[3:]]


def test_importing_again_changes_nothing(here, there, tmp_path):
    here.results.add(document(RUN))
    export_results(here.results, here.shares, tmp_path / "out")
    import_results(there.results, there.shares, tmp_path / "out")
    again = import_results(there.results, there.shares, tmp_path / "out")
    assert again.added == ()
    assert again.known == (RUN,)
    assert again.conflicting == ()


def test_a_run_that_differs_is_named_and_the_one_at_hand_stays(here, there, tmp_path):
    here.results.add(document(RUN, seconds=1.0))
    there.results.add(document(RUN, seconds=2.0))
    export_results(here.results, here.shares, tmp_path / "out")
    assert import_results(there.results, there.shares, tmp_path / "out").conflicting == (RUN,)
    assert there.results.run(RUN).seconds == 2.0


def test_hardware_is_kept_apart(here, there, tmp_path):
    here.results.add(document(RUN, hardware_id="laptop"))
    there.results.add(document(OTHER, hardware_id="server"))
    export_results(here.results, here.shares, tmp_path / "out")
    import_results(there.results, there.shares, tmp_path / "out")
    frame = frontier(there.database, "bytes", "kld")
    assert dict(zip(frame["run_id"], frame["hardware_id"], strict=True)) == {
        RUN: "laptop",
        OTHER: "server",
    }
    assert frame["on_frontier"].all()


def test_named_runs_alone_are_exported_and_the_tables_agree(here, tmp_path):
    here.results.add(document(RUN))
    here.results.add(document(OTHER))
    assert export_results(here.results, here.shares, tmp_path / "out", [OTHER]) == 1
    assert [path.stem for path in (tmp_path / "out" / "results").iterdir()] == [OTHER]
    for table in ("runs", "readings", "generations"):
        frame = pd.read_parquet(tmp_path / "out" / f"{table}.parquet")
        assert set(frame["run_id"]) == {OTHER}


def test_hostile_files_in_an_import_are_refused_one_by_one(there, tmp_path):
    folder = tmp_path / "out" / "results"
    folder.mkdir(parents=True)
    (folder / f"{RUN}.json").write_text(json.dumps(document(RUN)))
    (folder / f"{OTHER}.json").write_text("[" * 50_000)
    (folder / "evil.json").write_text(json.dumps(document(RUN) | {"run_id": "../x"}))
    manifest = {"format": 1, "shares": ["text", {"x": 1}]}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    imported = import_results(there.results, there.shares, tmp_path / "out")
    assert imported.added == (RUN,)
    assert len(imported.refused) == 2


def test_a_folder_without_an_export_is_refused(there, tmp_path):
    with pytest.raises(StoreError, match="no exported results"):
        import_results(there.results, there.shares, tmp_path)
