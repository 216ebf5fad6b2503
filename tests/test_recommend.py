"""Recommendations: what they promise holds for any runs and any limits."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.measure.fronts import better
from backend.measure.recommend import Candidate, Limit, Value, recommend


def run(name, kld, size, speed=1.0, width=1.1):
    return Candidate(
        name,
        name,
        1,
        {
            "kld_mean": Value(kld, kld / width, kld * width),
            "resident_bytes": Value(size),
            "decode_speedup": Value(speed, speed / 1.02, speed * 1.02),
        },
    )


RUNS = [
    run("dense", 1e-6, 100), run("eight", 0.001, 60), run("four", 0.02, 40, 1.5),
    run("four-b", 0.0201, 38), run("three", 0.2, 32), run("two", 3.0, 28, 2.0),
]  # fmt: skip
SIZE = Limit("resident_bytes", "most", 45)


def names(found):
    return [choice.candidate.run_id for choice in found.choices]


def test_the_best_that_fits_comes_first_and_the_smaller_that_ties_beside_it():
    found = recommend(RUNS, [SIZE])
    assert names(found)[:2] == ["four", "four-b"]
    assert "5 % smaller" in found.choices[1].reason


def test_one_that_is_hardly_smaller_is_not_called_smaller():
    found = recommend([run("four", 0.02, 400), run("four-b", 0.0201, 397)], [])
    assert names(found) == ["four", "four-b"]
    assert found.choices[1].reason == "the runner-up"


def test_a_dense_model_that_fits_itself_is_told():
    assert recommend(RUNS, [Limit("resident_bytes", "most", 100)]).dense is RUNS[0]
    assert recommend(RUNS, [SIZE]).dense is None
    assert recommend(RUNS, [Limit("kld_mean", "most", 0.1)], smallest=True).dense is None


def test_the_binding_limit_and_what_would_change_the_answer_are_told():
    found = recommend(RUNS, [SIZE])
    assert found.binding == SIZE
    assert found.changes[0].candidate.run_id == "eight"
    assert found.changes[0].bound == 60


def test_a_bound_is_moved_for_nothing_that_cannot_be_told_apart():
    """0.0199 against 0.02 is no gain that twice the bytes are worth; nor are 99.5 bytes of 100."""
    alike = [run("four", 0.02, 40), run("five", 0.0199, 80, 0.5)]
    assert recommend(alike, [SIZE]).changes == ()
    assert (
        recommend([*alike, run("eight", 0.001, 90)], [SIZE]).changes[0].candidate.run_id == "eight"
    )
    floor = Limit("kld_mean", "most", 0.05)
    alike = [run("four", 0.02, 100), run("three", 0.2, 99.5), run("two", 3.0, 90)]
    assert recommend(alike[:2], [floor], smallest=True).changes == ()
    assert recommend(alike, [floor], smallest=True).changes[0].candidate.run_id == "two"


def test_a_floor_of_quality_asks_for_the_fewest_bytes():
    found = recommend(RUNS, [Limit("kld_mean", "most", 0.05)], smallest=True)
    assert names(found)[0] == "four-b"


def test_the_less_favourable_end_of_an_interval_decides():
    assert names(recommend(RUNS, [Limit("kld_mean", "most", 0.0201)], smallest=True))[0] == "eight"


def test_what_nothing_meets_gets_the_nearest_and_by_how_much_it_misses():
    found = recommend(RUNS, [Limit("resident_bytes", "most", 20)])
    assert not found.choices
    assert found.nearest.run_id == "two"
    assert found.missed == ((Limit("resident_bytes", "most", 20), 0.4),)


def test_a_run_without_the_reading_is_never_feasible():
    limit = Limit("decode_tps", "least", 20)
    assert recommend(RUNS, [limit]).choices == ()
    assert recommend(RUNS, [limit]).nearest is None


values = st.floats(1e-4, 10).map(lambda x: float(f"{x:.3g}"))
candidates = st.lists(
    st.tuples(values, st.integers(10, 100), st.floats(0.2, 4)), min_size=1, max_size=9
).map(lambda rows: [run(f"{n:02d}", *row) for n, row in enumerate(rows)])
bounds = st.tuples(st.integers(5, 110), st.floats(0.1, 4))


def limits_of(size, speed):
    return [Limit("resident_bytes", "most", size), Limit("decode_speedup", "least", speed)]


def point(one):
    return [one.values[name].value for name in ("resident_bytes", "kld_mean")]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(candidates, bounds)
def test_no_choice_breaks_a_limit_and_the_first_is_not_dominated(runs, bound):
    limits = limits_of(*bound)
    found = recommend(runs, limits)
    feasible = [one for one in runs if all(limit.violation(one) == 0 for limit in limits)]
    assert bool(found.choices) == bool(feasible)
    for choice in found.choices:
        assert choice.candidate in feasible
    assert len({choice.candidate.run_id for choice in found.choices}) == len(found.choices) <= 3
    if found.choices:
        first = point(found.choices[0].candidate)
        assert not any(better(point(one), first) for one in feasible)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(candidates, bounds, st.integers(0, 50), st.floats(0, 2))
def test_a_looser_limit_never_gives_worse_quality(runs, bound, more, slower):
    def quality(found):
        first = found.choices[0].candidate if found.choices else None
        return math.inf if first is None else first.values["kld_mean"].value

    strict = recommend(runs, limits_of(*bound))
    loose = recommend(runs, limits_of(bound[0] + more, bound[1] - slower))
    assert quality(loose) <= quality(strict)
