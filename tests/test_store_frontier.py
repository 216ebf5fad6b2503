"""The frontier from the database equals the one found by comparing every pair."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.store.frontier import axes, frontier
from backend.store.results import Filter
from backend.store.store import Store
from tests.result_documents import document, reading

VALUES = st.sampled_from([None, -2.0, -0.0, 0.0, 1.0, 1.5, 2.0, 3.0])
POINT = st.tuples(VALUES, VALUES, st.sampled_from(["done", "done", "broken"]), st.booleans())
DIRECTION = st.sampled_from(["lower", "higher"])


def dominated(mine, other, signs):
    pairs = [(a * sign, b * sign) for a, b, sign in zip(mine, other, signs, strict=True)]
    return all(b <= a for a, b in pairs) and any(b < a for a, b in pairs)


def brute_force(points, directions, by_hardware):
    signs = [1 if direction == "lower" else -1 for direction in directions]
    live = {
        name: (x, y, machine)
        for name, (x, y, status, machine) in points.items()
        if x is not None and y is not None and status == "done"
    }
    return {
        name
        for name, (x, y, machine) in live.items()
        if not any(
            dominated((x, y), (other_x, other_y), signs)
            for other_x, other_y, other_machine in live.values()
            if other_machine == machine or not by_hardware
        )
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with Store(tmp_path_factory.mktemp("frontier")) as opened:
        yield opened


def fill(store, documents):
    with store.database.writing() as cursor:
        cursor.execute("DELETE FROM readings")
        cursor.execute("DELETE FROM generations")
        cursor.execute("DELETE FROM results")
    with store.database.writing() as cursor:
        for one in documents:
            store.results.index(cursor, one)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(points=st.lists(POINT, max_size=12), x_side=DIRECTION, y_side=DIRECTION, apart=st.booleans())
def test_it_equals_brute_force_with_ties_nulls_and_broken_runs(
    store, points, x_side, y_side, apart
):
    named = {f"{number:016x}": point for number, point in enumerate(points)}
    fill(
        store,
        (
            document(
                name,
                [reading("x", x, x_side), reading("y", y, y_side)],
                status=status,
                hardware_id="one" if machine else "two",
                generations=[],
            )
            for name, (x, y, status, machine) in named.items()
        ),
    )
    frame = frontier(store.database, "x", "y", by_hardware=apart)
    listed = {name for name, (x, y, *_) in named.items() if x is not None and y is not None}
    assert set(frame["run_id"]) == listed
    expected = brute_force(named, (x_side, y_side), apart)
    assert set(frame[frame["on_frontier"]]["run_id"]) == expected


def test_nan_and_infinity_in_the_table_are_left_out(store):
    fill(store, [document(f"{n:016x}", [reading("x", n), reading("y", -n)]) for n in range(4)])
    with store.database.writing() as cursor:
        cursor.execute("UPDATE readings SET value = 'nan' WHERE run_id = ?", [f"{0:016x}"])
        cursor.execute("UPDATE readings SET value = '-inf' WHERE run_id = ?", [f"{1:016x}"])
    frame = frontier(store.database, "x", "y")
    assert list(frame["run_id"]) == [f"{2:016x}", f"{3:016x}"]
    assert frame["on_frontier"].all()
    assert all(math.isfinite(value) for value in frame["x"])


def test_models_and_protocols_never_compete(store):
    readings = [[reading("x", n), reading("y", n)] for n in (1, 2, 3)]
    tales = document("a" * 16)["model"]
    fill(
        store,
        [
            document("a" * 16, readings[0]),
            document("b" * 16, readings[1], model=tales | {"name": "other"}),
            document("c" * 16, readings[2], protocol="another"),
        ],
    )
    assert frontier(store.database, "x", "y")["on_frontier"].all()
    alone = frontier(store.database, "x", "y", Filter(models=("other",)))
    assert list(alone["run_id"]) == ["b" * 16]


def test_a_reading_without_a_better_side_has_no_frontier(store):
    fill(store, [document("a" * 16, [reading("x", 1, "none"), reading("y", 1)])])
    frame = frontier(store.database, "x", "y")
    assert list(frame["on_frontier"]) == [False]


def test_the_frame_tells_how_each_number_came_to_be(store):
    fill(store, [document("a" * 16, [reading("x", 1, kind="estimated"), reading("y", 2)])])
    row = frontier(store.database, "x", "y").iloc[0]
    assert (row["x_kind"], row["y_kind"]) == ("estimated", "measured")
    assert (row["x_low"], row["x_high"], row["y_unit"]) == (0, 2, "nats")


@pytest.mark.security
def test_any_text_is_only_ever_the_name_of_a_reading(store):
    fill(store, [document("a" * 16)])
    hostile = ["", "'", "kld'; DROP TABLE results; --", "$x", "\x00", "x" * 10_000]
    for x, y in itertools.product(hostile, repeat=2):
        assert frontier(store.database, x, y).empty
    assert store.results.count() == 1


def test_axes_list_what_can_be_drawn(store):
    fill(
        store,
        [
            document("a" * 16, [reading("kld", 1), reading("speed", 2, "higher")]),
            document("b" * 16, [reading("kld", None), reading("speed", 2, "higher")]),
        ],
    )
    frame = axes(store.database)
    assert list(frame["name"]) == ["speed", "kld"]
    assert list(frame["runs"]) == [2, 1]
    assert list(frame["direction"]) == ["higher", "lower"]
