"""Numbers are written with their unit and no more digits than they deserve."""

from __future__ import annotations

import pytest

from ui import numbers


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1_706_368, "B", "1.71 MB"),
        (999, "B", "999 B"),
        (999_700, "B", "1.00 MB"),
        (0, "B", "0 B"),
        (256, "B/token", "256 B/token"),
        (16_000_000_000, "B", "16.0 GB"),
        (99.17496, "%", "99.2 %"),
        (-0.01, "%", "0.0 %"),
        (1.0476, "×", "1.05×"),
        (0.02384, "nats/token", "0.0238 nats/token"),
        (0.0000895157, "nats/token", "8.95·10⁻⁵ nats/token"),
        (0, "nats", "0 nats"),
        (10_903.4, "tok/s", "10,900 tok/s"),
        (88.978, "tok/s", "89.0 tok/s"),
        (51.02, "s", "51.0 s"),
        (300, "s", "5 min"),
        (2.4419, "", "2.44"),
        (None, "B", "–"),
        (float("nan"), "B", "–"),
    ],
)
def test_a_value_reads_well(value, unit, expected):
    assert numbers.quantity(value, unit) == expected


def test_an_interval_needs_both_ends():
    assert numbers.interval(0.1, 0.2, "nats") == "0.100 to 0.200 nats"
    assert numbers.interval(900e3, 1.2e6, "B") == "900 kB to 1.20 MB"
    assert numbers.interval(0.9, 1.1, "×") == "0.900× to 1.10×"
    assert numbers.interval(0.1, None, "nats") == ""


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (89, "89 s"), (150, "2 min"), (7200, "2.0 h")]
)
def test_a_duration_is_told_in_one_unit(seconds, expected):
    assert numbers.duration(seconds) == expected
