"""What is kept of the stored runs is made once, never of before, and never grows."""

from backend.advice import Advice
from backend.store.remembered import Remembered
from backend.store.store import Store
from tests.result_documents import document, reading

RUN, OTHER = "a" * 16, "b" * 16


class Maker:
    """A function that tells what it was asked, and at which version."""

    def __init__(self, most=8):
        self.version = 0
        self.made = []
        self.remembered = Remembered(lambda: self.version, self.make, most)

    def make(self, *asked):
        self.made.append(asked)
        return (self.version, *asked)


def test_an_answer_is_made_once_a_version():
    maker = Maker()
    assert [maker.remembered("x", "y") for _ in range(3)] == [(0, "x", "y")] * 3
    assert maker.remembered("y", "x") == (0, "y", "x")
    assert maker.made == [("x", "y"), ("y", "x")]
    maker.version = 1
    assert maker.remembered("x", "y") == (1, "x", "y")
    assert len(maker.remembered) == 1, "none of before is held"


def test_the_answer_not_asked_for_longest_goes_first():
    maker = Maker(most=2)
    for name in "abacab":
        maker.remembered(name)
    assert maker.made == [("a",), ("b",), ("c",), ("b",)]
    assert len(maker.remembered) == 2


def test_what_was_begun_before_a_run_came_is_not_kept_for_after_it():
    maker = Maker()

    def make(*asked):
        made = maker.make(*asked)
        if len(maker.made) == 1:  # a run comes, and somebody else asks about it, meanwhile
            maker.version = 1
            assert remembered("x") == (1, "x")
        return made

    remembered = Remembered(lambda: maker.version, make)
    assert remembered("x") == (0, "x")
    assert remembered("x") == (1, "x")
    assert len(maker.made) == 2


def test_frontier_and_runs_follow_the_runs_and_whoever_changes_theirs_changes_no_others(tmp_path):
    readings = [reading("resident_bytes", 8.0), reading("kld_mean", 0.5)]
    with Store(tmp_path) as store:
        store.results.add(document(RUN, readings))
        for ask in (
            lambda: store.frontier("resident_bytes", "kld_mean"),
            lambda: store.results.runs(metrics=["kld_mean"]),
        ):
            frame = ask()
            frame.loc[0, "recipe"] = "another"
            assert list(ask()["recipe"]) != ["another"]
        store.results.add(document(OTHER, readings))
        assert len(store.frontier("resident_bytes", "kld_mean")) == 2
        assert set(store.results.runs()["run_id"]) == {RUN, OTHER}


def test_runs_that_are_read_anew_are_others_though_as_many(tmp_path):
    readings = [reading("resident_bytes", 8.0), reading("kld_mean", 0.5)]
    with Store(tmp_path) as store:
        store.results.add(document(RUN, readings))
        with store.database.writing() as cursor:
            cursor.execute("UPDATE results SET recipe = 'wrong'")
        advice = Advice(store)
        asks = (
            lambda: store.frontier("resident_bytes", "kld_mean"),
            lambda: advice.standing("resident_bytes", "kld_mean"),
            lambda: store.results.runs(metrics=["kld_mean"]),
        )
        assert [list(ask()["recipe"]) for ask in asks] == [["wrong"]] * 3
        store.results.rebuild()
        assert not any("wrong" in list(ask()["recipe"]) for ask in asks)
