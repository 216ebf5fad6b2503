"""The index answers what the files say, and can be made from them at any time."""

from __future__ import annotations

import pytest

from backend.store.errors import ResultRefusedError
from backend.store.results import Filter
from backend.store.store import Store
from tests.result_documents import document, reading

RUN, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "home") as opened:
        yield opened


def tables(store):
    with store.database.reading() as cursor:
        return (
            cursor.execute("SELECT * FROM results ORDER BY ALL").fetchall(),
            cursor.execute("SELECT * FROM readings ORDER BY ALL").fetchall(),
            cursor.execute("SELECT * FROM generations ORDER BY ALL").fetchall(),
        )


def test_a_run_comes_back_whole(store):
    given = document(RUN)
    assert store.results.add(given)
    run = store.results.run(RUN)
    assert run.recipe == "gptq@4"
    assert run.model == given["model"]
    assert run.generations == given["generations"]
    assert run.layers == given["layers"]
    assert run.reading("kld").value == 0.5
    assert run.reading("kld").samples == 3
    assert run.reading("absent") is None


def test_a_result_is_kept_once(store):
    assert store.results.add(document(RUN))
    before = tables(store)
    assert not store.results.add(document(RUN, seconds=99.0))
    assert tables(store) == before


def test_an_unsound_result_leaves_neither_file_nor_row(store):
    with pytest.raises(ResultRefusedError):
        store.results.add(document(RUN, status="perfect"))
    assert store.results.count() == 0
    assert not list(store.results.folder.glob("*.json"))


def test_an_unknown_or_hostile_id_finds_nothing(store):
    for run_id in (RUN, "../../etc/passwd", "", "x" * 16, RUN + "\n"):
        assert store.results.run(run_id) is None
        assert not store.results.known(run_id)


def test_the_frame_of_runs_carries_the_metrics_asked_for(store):
    store.results.add(document(RUN, created="2026-05-01T10:00:00+00:00"))
    store.results.add(document(OTHER, [reading("kld", None)], created="2026-05-02T10:00:00+00:00"))
    frame = store.results.runs(metrics=("kld", "bytes", "absent"))
    assert list(frame["run_id"]) == [OTHER, RUN]
    assert frame["kld"].isna().tolist() == [True, False]
    assert frame["bytes"].tolist()[1] == 1000
    assert frame["absent"].isna().all()


def test_a_metric_named_like_a_column_keeps_both(store):
    store.results.add(document(RUN, [reading("seconds", 7)]))
    frame = store.results.runs(metrics=("seconds",))
    assert frame["seconds"].tolist() == [2.5]
    assert frame["seconds_reading"].tolist() == [7]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (Filter(), {RUN, OTHER}),
        (Filter(models=("tales",)), {RUN, OTHER}),
        (Filter(models=("none",)), set()),
        (Filter(hardware=("bbbb",)), {OTHER}),
        (Filter(families=("prune", "quantise")), {RUN, OTHER}),
        (Filter(families=("prune",)), {OTHER}),
        (Filter(protocols=("another",)), set()),
        (Filter(models=("' OR 1=1 --",)), set()),
    ],
)
def test_filters_choose_runs(store, chosen, found):
    store.results.add(document(RUN))
    store.results.add(document(OTHER, hardware_id="bbbb", family="prune"))
    assert set(store.results.runs(chosen)["run_id"]) == found


def test_choices_list_what_occurs(store):
    store.results.add(document(RUN))
    store.results.add(document(OTHER, hardware_id="bbbb"))
    frame = store.results.choices()
    assert list(frame["hardware_id"]) == ["aaaa", "bbbb"]
    assert list(frame["runs"]) == [1, 1]


def test_the_generations_of_named_runs_come_in_the_order_of_the_prompts(store):
    store.results.add(document(RUN))
    store.results.add(document(OTHER))
    frame = store.results.generations([OTHER])
    assert list(frame["run_id"]) == [OTHER, OTHER]
    assert list(frame["prompt"]) == ["Once", "Ünlike"]
    assert frame["gap"].isna().tolist() == [False, True]


def test_a_rebuild_from_the_files_gives_equal_tables(store):
    store.results.add(document(RUN))
    store.results.add(document(OTHER, [], generations=[], status="broken"))
    before = tables(store)
    with store.database.writing() as cursor:
        cursor.execute("DELETE FROM readings")
        cursor.execute("UPDATE results SET recipe = 'wrong'")
    assert set(store.results.runs()["recipe"]) == {"wrong"}
    (store.results.folder / f"{'a' * 16}.json").write_text("{}")
    rebuilt = store.results.rebuild()
    assert rebuilt.runs == 2
    assert len(rebuilt.refused) == 1
    assert "wrong" not in set(store.results.runs()["recipe"])
    assert tables(store) == before


def test_a_copied_folder_of_results_is_indexed_at_opening(store, tmp_path):
    store.results.add(document(RUN))
    (tmp_path / "copy").mkdir()
    store.results.folder.rename(tmp_path / "copy" / "results")
    with Store(tmp_path / "copy") as copy:
        assert copy.results.known(RUN)
        assert tables(copy) == tables(store)


def test_the_same_view_has_the_same_slug_and_opens_again(store):
    slug = store.shares.keep({"x": "bytes", "y": "kld"})
    assert slug == store.shares.keep({"y": "kld", "x": "bytes"})
    assert store.shares.find(slug) == {"x": "bytes", "y": "kld"}
    assert store.shares.find("0" * 16) is None
    assert store.shares.find("'; DROP TABLE shares; --") is None


@pytest.mark.parametrize("query", [{"x": float("nan")}, {"x": {1, 2}}, {"x": "a" * 20_000}])
def test_a_view_that_is_no_small_json_is_refused(store, query):
    with pytest.raises(Exception, match=r"shared view|cannot be shared"):
        store.shares.keep(query)
