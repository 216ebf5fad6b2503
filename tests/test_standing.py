"""Standing on a frontier under uncertainty: planted runs whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from backend.standing import judge, summarise


def frame(rows):
    """Rows of (run_id, x, y, y_low, y_high) as the store's frontier gives them."""
    columns = ["run_id", "x", "y", "y_low", "y_high"]
    found = pd.DataFrame(rows, columns=columns)
    constant = {
        "model": "m", "protocol": "p", "hardware_id": "h", "status": "done", "family": "quantise",
        "x_low": np.nan, "x_high": np.nan, "x_direction": "lower", "y_direction": "lower",
    }  # fmt: skip
    return found.assign(**constant)


def nothing(_):
    return {}


def probabilities(found):
    return dict(zip(found["run_id"], found["p_front"], strict=True))


def test_what_is_surely_better_stands_and_what_is_surely_worse_does_not():
    rows = [("small", 10, 1.0, 0.9, 1.1), ("good", 20, 0.1, 0.09, 0.11), ("bad", 21, 2.0, 1.9, 2.1)]
    found = judge(frame(rows), "resident_bytes", "kld_mean", nothing)
    assert probabilities(found) == {"small": 1.0, "good": 1.0, "bad": 0.0}
    assert not found["tied"].any()


def test_two_that_cannot_be_told_apart_are_tied():
    """Equal bytes and equal wide intervals: each is beaten by more than 5 % about as often."""
    rows = [("a", 10, 0.1, 0.06, 0.16), ("b", 10, 0.1, 0.06, 0.16)]
    found = judge(frame(rows), "resident_bytes", "kld_mean", nothing)
    assert found["tied"].all()
    shares = probabilities(found)
    assert shares["a"] == pytest.approx(shares["b"], abs=0.08)
    assert 0.5 < shares["a"] < 0.65  # half of the draws, and those within 5 %


def test_a_tie_in_bytes_and_divergence_dominates_nobody():
    rows = [("a", 1000, 0.100, 0.1, 0.1), ("b", 1005, 0.102, 0.102, 0.102)]
    assert probabilities(judge(frame(rows), "resident_bytes", "kld_mean", nothing)) == {
        "a": 1.0,
        "b": 1.0,
    }


def test_documents_in_common_tell_apart_what_intervals_alone_cannot():
    """Every document costs b a tenth more than a: sure, though documents differ fivefold."""
    tokens = [100.0] * 12
    costs = np.linspace(1, 5, 12)
    sums = {
        "a": {"tokens": tokens, "kld": list(100 * costs), "dnll": tokens, "agree": tokens},
        "b": {"tokens": tokens, "kld": list(110 * costs), "dnll": tokens, "agree": tokens},
    }
    rows = [("a", 10, 3.0, 2.2, 3.8), ("b", 10, 3.3, 2.5, 4.1)]
    joint = judge(frame(rows), "resident_bytes", "kld_mean", sums.get)
    assert probabilities(joint) == {"a": 1.0, "b": 0.0}
    alone = judge(frame(rows), "resident_bytes", "kld_mean", nothing)
    assert 0.05 < probabilities(alone)["b"] < 0.95


def test_runs_of_different_machines_are_never_judged_against_each_other():
    found = frame([("a", 10, 0.1, 0.1, 0.1), ("b", 10, 9.0, 9.0, 9.0)])
    found["hardware_id"] = ["h", "other"]
    assert probabilities(judge(found, "resident_bytes", "kld_mean", nothing)) == {"a": 1, "b": 1}


def test_thousands_of_runs_are_thinned_without_losing_the_front():
    rows = [(f"{n}", 1000 - n, 1 + n / 1000, 1 + n / 1000, 1 + n / 1000) for n in range(900)]
    rows += [(f"worse {n}", 1000, 50.0, 49.0, 51.0) for n in range(900)]
    rows.append(("best", 1, 1e-3, 1e-3, 1e-3))
    found = judge(frame(rows), "resident_bytes", "kld_mean", nothing)
    assert probabilities(found)["best"] == 1.0
    assert found["p_front"].sum() == 1.0


def test_the_hypervolume_of_one_run_is_a_rectangle():
    """1,000 parameters: 125 bytes are 1 bit each, 2,000 the dense size, four doublings apart.

    500 bytes lie half way; a divergence of the root of the floor lies half way too.
    """
    rows = [("only", 500, 0.01, 0.01, 0.01)]
    found = summarise(frame(rows), nothing, parameters=1000, dense_bytes=2000.0, floor=0.0001)
    assert found.hypervolume == pytest.approx(0.25)
    assert found.knee == ""
