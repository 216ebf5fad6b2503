"""The chart says what the numbers say: places, steps, symbols and words."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from ui import axes, beside, cards, charts, families, views
from ui.axes import Axis

SIZE = Axis("resident_bytes", "Resident memory", "B", "lower", True)
DISTANCE = Axis("kld_mean", "KL divergence", "nats/token", "lower", True)
SPEED = Axis("decode_speedup", "Decode speed-up", "×", "higher", True)
SCORE = Axis("top1_agree", "Same first choice", "%", "higher", False)


def row(run_id, x, y, front=False, **other):
    about = {
        "run_id": run_id,
        "model": "tales",
        "recipe": f"gptq@{run_id}",
        "family": "quantise",
        "status": "done",
        "hardware_id": "aaaa",
        "protocol": "cq-2",
        "created": "2026-05-01T10:00:00+00:00",
        "on_frontier": front,
    }
    for side, value in (("x", x), ("y", y)):
        about |= {side: value, f"{side}_low": math.nan, f"{side}_high": math.nan}
        about |= {f"{side}_direction": "lower", f"{side}_kind": "measured", f"{side}_unit": ""}
    return about | other


def frame(*rows):
    return pd.DataFrame(list(rows))


def traces(figure, role):
    return [trace for trace in figure.data if trace.meta and trace.meta["role"] == role]


def test_the_frontier_is_a_step_line_in_the_order_of_size():
    figure = charts.pareto(
        frame(row("b", 2e6, 0.1, True), row("a", 1e6, 0.5, True), row("c", 3e6, 0.4)),
        SIZE,
        DISTANCE,
    )
    (line,) = traces(figure, "frontier")
    assert line.x == (1e6, 2e6)
    assert line.y == (0.5, 0.1)
    assert line.line.shape == "hv"


def test_where_more_is_better_across_a_step_falls_first():
    figure = charts.pareto(frame(row("a", 1.0, 0.5, True)), SPEED, DISTANCE)
    assert traces(figure, "frontier")[0].line.shape == "vh"


@pytest.mark.parametrize("side", ["model", "protocol", "hardware_id"])
def test_runs_that_may_not_compete_are_never_joined(side):
    rows = [row("a", 1e6, 0.5, True), row("b", 2e6, 0.1, True) | {side: "other"}]
    assert len(traces(charts.pareto(frame(*rows), SIZE, DISTANCE), "frontier")) == 2


@pytest.mark.parametrize("side", ["model", "protocol"])
def test_a_dot_names_its_model_and_protocol_where_a_chart_holds_several(side):
    rows = [row("a", 1e6, 0.5, True), row("b", 2e6, 0.1, True) | {side: "other"}]
    found = [
        trace.hovertext for trace in traces(charts.pareto(frame(*rows), SIZE, DISTANCE), "dots")
    ]
    assert "<br>of other<br>" in found[0][1]
    alone = traces(charts.pareto(frame(rows[0]), SIZE, DISTANCE), "dots")
    assert "<br>of " not in alone[0].hovertext[0]


def test_nothing_lies_below_every_positive_value_of_a_logarithmic_axis_and_is_named_zero():
    figure = charts.pareto(
        frame(row("a", 1e6, 0.5, True), row("b", 2e6, 0.0, True)), SIZE, DISTANCE
    )
    (dots,) = traces(figure, "dots")
    assert 0 < dots.y[1] < dots.y[0]
    assert figure.layout.yaxis.ticktext[0] == "0"
    assert figure.layout.yaxis.tickvals[0] == dots.y[1]
    assert "KL divergence: <b>0 nats/token</b>" in dots.hovertext[1]


def test_every_dot_lies_inside_the_axes():
    figure = charts.pareto(frame(row("a", 7e5, 3.0), row("b", 2e6, 0.0)), SIZE, DISTANCE)
    (dots,) = traces(figure, "dots")
    for values, axis in ((dots.x, figure.layout.xaxis), (dots.y, figure.layout.yaxis)):
        low, high = (10**end for end in axis.range)
        assert all(low < value < high for value in values)


def test_an_estimate_is_hollow_and_a_broken_run_a_cross():
    rows = [row("a", 1e6, 0.5, x_kind="estimated"), row("b", 2e6, 9.0, status="broken")]
    (dots,) = traces(charts.pareto(frame(*rows), SIZE, DISTANCE), "dots")
    assert list(dots.marker.symbol) == ["circle-open", "x-thin-open"]
    assert "broken" in dots.hovertext[1]


def test_intervals_become_bars_of_their_own_length():
    rows = [row("a", 1e6, 0.5, y_low=0.4, y_high=0.7), row("b", 2e6, 0.2)]
    (dots,) = traces(charts.pareto(frame(*rows), SIZE, DISTANCE), "dots")
    assert dots.error_y.array == pytest.approx([0.2, 0])
    assert dots.error_y.arrayminus == pytest.approx([0.1, 0])


def test_families_differ_in_colour_and_in_symbol():
    colours, symbols = zip(*families.FAMILIES.values(), strict=True)
    assert len(set(colours)) == len(colours)
    assert len(set(symbols)) == len(symbols)
    assert families.mark("never heard of")[1] not in symbols


def test_opacity_and_words_say_how_surely_a_run_stands_on_the_front():
    rows = [
        row("sure", 1e6, 0.5, True, p_front=0.96),
        row("perhaps", 1e6, 0.55, p_front=0.4),
        row("beaten", 2e6, 0.9, p_front=0.04),
    ]
    (dots,) = traces(charts.pareto(frame(*rows), SIZE, DISTANCE), "dots")
    assert list(dots.marker.opacity) == [charts.SOLID, charts.HALF, charts.FADED]
    assert "on the front in 40.0 % of draws" in dots.hovertext[1]


def test_before_the_draws_the_frontier_is_solid_and_the_rest_faded():
    rows = [row("a", 1e6, 0.5, True), row("b", 2e6, 0.9)]
    (dots,) = traces(charts.pareto(frame(*rows), SIZE, DISTANCE), "dots")
    assert list(dots.marker.opacity) == [charts.SOLID, charts.FADED]
    assert "of draws" not in "".join(dots.hovertext)


def test_the_knee_is_ringed_where_its_run_is_drawn():
    rows = frame(row("a", 1e6, 0.5, True), row("b", 2e6, 0.1, True))
    (ring,) = traces(charts.pareto(rows, SIZE, DISTANCE, knee="b"), "knee")
    assert (ring.x, ring.y) == ((2e6,), (0.1,))
    assert not traces(charts.pareto(rows, SIZE, DISTANCE, knee="gone"), "knee")


EXPECTED = [
    beside.Expected("rtn@<4", "quantise", 2e6, 0.1, 0.05, 0.2, "6 runs"),
    beside.Expected("svd@4", "factorise", 3e6, 0.4, 0.2, 0.8, "1 run"),
    beside.Expected("rtn@8", "quantise", 4e6, 0.01, 0.005, 0.02, "6 runs"),
]


def test_what_is_expected_is_hollow_and_says_its_interval_and_basis():
    figure = charts.pareto(frame(row("a", 1e6, 0.5, True)), SIZE, DISTANCE, expected=EXPECTED)
    (dots,) = traces(figure, "expected")
    assert all(symbol.endswith("-open") for symbol in dots.marker.symbol)
    assert "rtn@&lt;4" in dots.hovertext[0]
    assert "95 %: 0.0500 to 0.200 nats/token" in dots.hovertext[0]
    assert "from 6 runs" in dots.hovertext[0]
    assert not traces(figure, "expected-line")
    assert 10 ** figure.layout.xaxis.range[1] > 4e6


def test_of_a_model_without_runs_the_expected_front_is_drawn():
    empty = frame(row("a", 1e6, 0.5)).iloc[:0]
    (line,) = traces(charts.pareto(empty, SIZE, DISTANCE, expected=EXPECTED), "expected-line")
    assert line.x == (2e6, 4e6)
    assert line.y == (0.1, 0.01)


def test_runs_at_one_place_share_a_label():
    rows = [row("a", 1e6, 0.5, True), row("b", 1e6, 0.5, True), row("c", 2e6, 0.1, True)]
    assert charts.labels(frame(*rows)) == {"a": "gptq@a, gptq@b", "c": "gptq@c"}


@pytest.mark.parametrize("front", [False, True])
def test_the_dense_model_is_named_beside_however_many(front):
    rows = [row(str(at), 1e6 + at, 0.5, True) for at in range(charts.LABELS + 1)]
    dense = row("d", 2e6, 0.0, front, family="dense", recipe="dense")
    assert charts.labels(frame(*rows, dense)) == {"d": "dense"}
    assert charts.labels(frame(rows[0], dense)) == {"0": "gptq@0", "d": "dense"}


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (1, 100, True, [1, 2, 5, 10, 20, 50, 100]),
        (1e-5, 10, True, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10]),
        (0, 10, False, [0, 2, 4, 6, 8, 10]),
        (0.9, 1.15, False, [0.9, 0.95, 1.0, 1.05, 1.1, 1.15]),
        (1.0, 1.5, True, [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]),
    ],
)
def test_ticks_are_round(low, high, log, expected):
    assert axes.ticks(low, high, log) == pytest.approx(expected)


def test_axes_say_unit_and_better_side():
    figure = charts.pareto(frame(row("a", 1e6, 99.0, True)), SIZE, SCORE)
    assert "← better" in figure.layout.xaxis.title.text
    assert "↑ better" in figure.layout.yaxis.title.text
    assert all(text.endswith("%") for text in figure.layout.yaxis.ticktext)
    assert all(text.endswith(("kB", "MB")) for text in figure.layout.xaxis.ticktext)


def test_no_rows_make_an_empty_chart():
    empty = frame(row("a", 1e6, 0.5)).iloc[:0]
    assert not charts.pareto(empty, SIZE, DISTANCE).data


def test_a_recipe_cannot_mark_up_the_chart():
    hostile = row("a", 1e6, 0.5, True, recipe="<a href='x'>$\\alpha$</a>")
    (dots,) = traces(charts.pareto(frame(hostile), SIZE, DISTANCE), "dots")
    shown = dots.hovertext[0] + dots.text[0]
    assert "<a" not in shown
    assert "$" not in shown


def test_a_bound_shades_what_lies_beyond():
    figure = charts.pareto(frame(row("a", 1e6, 0.5)), SIZE, DISTANCE, x_limit=1.2e6)
    (shape,) = figure.layout.shapes
    assert shape.x0 == 1.2e6 < shape.x1


def test_bounds_on_both_sides_shade_what_lies_beyond():
    rows = frame(row("a", 1e6, 0.1, True), row("b", 2e6, 0.01, True))
    figure = charts.pareto(rows, SIZE, DISTANCE, x_limit=1.5e6, y_limit=0.05)
    across, up = [shape for shape in figure.layout.shapes if shape.name == "limit"]
    assert (across.xref, across.yref, across.x0) == ("x", "paper", 1.5e6)
    assert across.x1 > 2e6
    assert (up.yref, up.xref, up.y0) == ("y", "paper", 0.05)
    assert up.y1 > 0.1


def test_a_floor_of_a_side_where_more_is_better_shades_downwards():
    figure = charts.pareto(frame(row("a", 1.0, 0.5, True)), SPEED, DISTANCE, x_limit=0.8)
    (shape,) = [one for one in figure.layout.shapes if one.name == "limit"]
    assert shape.x1 < 0.8


def test_a_failed_attempt_is_a_cross_that_says_why():
    failed = [beside.Failed("gptq@2", 5e5, "it <b>broke</b>")]
    figure = charts.pareto(frame(row("a", 1e6, 0.1, True)), SIZE, DISTANCE, failed=failed)
    (crosses,) = traces(figure, "failed")
    assert crosses.marker.symbol == "x-thin-open"
    assert "gptq@2" in crosses.hovertext[0]
    assert "it &lt;b&gt;broke" in crosses.hovertext[0]
    low, high = (10**end for end in figure.layout.xaxis.range)
    assert low < 5e5 < high


def test_the_frontier_of_the_most_runs_is_drawn_first():
    rows = [row("a", 1e6, 0.1, True), row("b", 2e6, 0.01, True), row("c", 3e6, 0.2)]
    other = row("d", 1e6, 0.1, True) | {"hardware_id": "0000"}
    first, second = traces(charts.pareto(frame(other, *rows), SIZE, DISTANCE), "frontier")
    assert len(first.x) == 2
    assert len(second.x) == 1


@pytest.mark.parametrize(
    ("value", "own", "told"),
    [
        (75.0, 100.0, " (25.0 % less)"),
        (150.0, 100.0, " (50.0 % more)"),
        (0.01, 0.1, " (10.0 times less)"),
        (0.3, 0.1, " (3.00 times as much)"),
        (2.0, 2.0, " (the same)"),
        (0.0, 0.1, ""),
    ],
)
def test_by_how_much_one_value_stands_to_another(value, own, told):
    assert cards.by_how_much(value, own) == told


def test_of_very_many_runs_the_frontier_is_drawn_whole_and_a_part_of_the_others():
    rows = pd.DataFrame(
        {
            "run_id": [f"{n:016x}" for n in range(7000)],
            "on_frontier": [n % 1000 == 0 for n in range(7000)],
        }
    )
    drawn = views._sample(rows)
    assert drawn["on_frontier"].sum() == 7
    assert 1_000 < len(drawn) <= views.DOTS
    assert len(views._sample(rows.head(2000))) == 2000
