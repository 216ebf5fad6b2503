"""A result file holds exactly what its contract says, or is refused with a sentence."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.store import documents
from backend.store.errors import ResultRefusedError
from tests.result_documents import document, reading

RUN = "0123456789abcdef"


def test_a_written_document_reads_back_equal(tmp_path):
    path = documents.write_document(tmp_path, document(RUN))
    assert path == tmp_path / f"{RUN}.json"
    assert documents.read_document(path) == document(RUN)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.security
def test_a_result_never_changes_once_written(tmp_path):
    documents.write_document(tmp_path, document(RUN, seconds=1.0))
    path = documents.write_document(tmp_path, document(RUN, seconds=9.0))
    assert documents.read_document(path)["seconds"] == 1.0


def test_a_damaged_file_is_replaced_by_a_sound_one(tmp_path):
    (tmp_path / f"{RUN}.json").write_text('{"schema": 1, "run_')
    path = documents.write_document(tmp_path, document(RUN))
    assert documents.read_document(path) == document(RUN)


class KilledError(Exception):
    """Stands for the end of a process."""


def test_a_writer_whose_file_another_swept_away_and_then_died_writes_it_again(
    tmp_path, monkeypatch
):
    """The other finds no result yet, takes what is under way for a leftover, and is killed."""
    swept = []

    def die():
        raise KilledError

    def other():
        with pytest.raises(KilledError):
            documents.write_document(tmp_path, document(RUN))
        swept.append([one.name for one in tmp_path.iterdir()])

    def fault(_):
        if threading.current_thread() is not threading.main_thread():
            die()
        if not swept:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()

    monkeypatch.setattr(documents, "fault_point", fault)
    path = documents.write_document(tmp_path, document(RUN))
    assert swept == [[]], "nothing was left of the first"
    assert documents.read_document(path) == document(RUN)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_many_threads_that_write_the_same_run_leave_it_whole(tmp_path):
    whole = document(RUN, notes=["x" * 100_000])
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: documents.write_document(tmp_path, whole), range(64)))
    assert documents.read_document(paths[0]) == whole
    assert [one.name for one in tmp_path.iterdir()] == [f"{RUN}.json"]


def test_what_a_killed_process_left_goes_with_the_next_writing(tmp_path):
    (tmp_path / f".{RUN}.json.1.tmp").write_text("{")
    path = documents.write_document(tmp_path, document(RUN))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 2}, "schema 2"),
        ({"run_id": "../../etc/passwd"}, "16 lower-case hexadecimal"),
        ({"run_id": RUN + "\n"}, "16 lower-case hexadecimal"),
        ({"status": "great"}, "done, broken"),
        ({"created": "yesterday"}, "ISO 8601"),
        ({"created": "2026-05-01T10:00:00"}, "time zone"),
        ({"seconds": True}, "must be int or float, not bool"),
        ({"seconds": float("nan")}, "not a finite number"),
        ({"model": {}}, "lacks `name`"),
        ({"manifest": {}}, "lacks `hardware_id`"),
        ({"readings": [reading("kld", 1), reading("kld", 2)]}, "given twice"),
        ({"readings": [reading("kld", float("inf"))]}, "not a finite number"),
        ({"readings": [reading("kld", 1, direction="up")]}, "lower, higher, none"),
        ({"readings": [reading("kld", 1, kind="guessed")]}, "measured, counted, estimated"),
        ({"readings": [reading("kld", 1) | {"value": "1"}]}, "must be int or float or null"),
        ({"readings": [reading("", 1)]}, "1 to 200 characters"),
        ({"readings": [5]}, "must be a JSON object"),
        ({"generations": [{"prompt": "a", "text": "b", "tokens": [1.5]}]}, "whole numbers"),
        ({"notes": [1]}, "text only"),
        ({"notes": ["\ud800"]}, "surrogate"),
        ({"budget": {"bits": 2**70}}, "beyond 64 bits"),
        ({"budget": {"deep": [{"x": float("nan")}]}}, "not a finite number"),
        ({"documents": {"kld": [0.5, float("inf")]}}, "not a finite number"),
    ],
)
def test_a_document_that_breaks_the_contract_is_refused_by_a_sentence(change, sentence):
    with pytest.raises(ResultRefusedError, match=sentence):
        documents.check(document(RUN) | change)


def test_every_field_is_demanded():
    for field in document(RUN):
        partial = document(RUN)
        del partial[field]
        with pytest.raises(ResultRefusedError, match=f"lacks `{field}`"):
            documents.check(partial)


def test_nan_in_a_file_is_refused(tmp_path):
    path = tmp_path / f"{RUN}.json"
    path.write_text(json.dumps(document(RUN) | {"seconds": float("nan")}))
    with pytest.raises(ResultRefusedError, match="NaN is no JSON number"):
        documents.read_document(path)


def test_a_file_nested_without_end_is_refused(tmp_path):
    path = tmp_path / f"{RUN}.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ResultRefusedError, match="is not a JSON result"):
        documents.read_document(path)


def test_a_file_beyond_the_cap_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "SIZE_LIMIT", 100)
    path = tmp_path / f"{RUN}.json"
    path.write_text(json.dumps(document(RUN)))
    with pytest.raises(ResultRefusedError, match="may hold 100"):
        documents.read_document(path)


def test_a_file_under_the_name_of_another_run_is_refused(tmp_path):
    path = tmp_path / f"{'f' * 16}.json"
    path.write_text(json.dumps(document(RUN)))
    with pytest.raises(ResultRefusedError, match=f"result of run {RUN}"):
        documents.read_document(path)
