"""What the command line prints for people: columns apart, numbers that read well."""

from __future__ import annotations

from types import SimpleNamespace

from backend import __main__ as program
from backend import console
from backend.measure.reading import Reading
from backend.measure.recommend import Limit


def reading(name, value, unit, low=None, high=None):
    return Reading(name, value, unit=unit, low=low, high=high, kind="measured")


def run(recipe, model, *readings):
    return SimpleNamespace(
        run_id=recipe,
        recipe=recipe,
        model={"name": model},
        readings=readings,
        reading=lambda name: next((one for one in readings if one.name == name), None),
    )


def test_numbers_have_four_digits_and_never_a_power_of_ten_that_could_be_written_out():
    assert console.cell({"value": 10_264.3, "unit": "tok/s"}) == "10,260 tok/s"
    assert console.cell({"value": 0.0027071, "low": 0.0025, "high": 0.003, "unit": ""}) == (
        "0.002707 [0.0025, 0.003]"
    )


def test_compared_runs_stand_in_columns_that_never_touch(capsys):
    runs = {
        one.run_id: one
        for one in (
            run("rtn@4", "tales", reading("kld_mean", 0.58161, "nats/token", 0.5602, 0.6039)),
            run("spqr@4", "default", reading("kld_mean", 0.0027, "nats/token", 0.0025, 0.0029)),
        )
    }
    options = SimpleNamespace(runs=list(runs), json=False)
    assert program.compare(SimpleNamespace(run=runs.__getitem__), options) == 0
    head, models, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["rtn@4", "spqr@4"]
    assert models.split() == ["of", "tales", "default"]
    assert line == (
        "KL divergence  0.5816 [0.5602, 0.6039] nats/token  0.0027 [0.0025, 0.0029] nats/token"
    )
    assert len(head) == len(models) == len(line)


def test_by_how_much_a_bound_is_missed_is_a_share_or_a_factor():
    bound = Limit("resident_bytes", "most", 1000.0)
    assert console.missed_text(bound, 0.968) == "Resident memory at most 1 kB by 96.8 %"
    assert console.missed_text(bound, 189.02) == (
        "Resident memory at most 1 kB, with 190 times as much"
    )


def test_a_speed_of_nothing_misses_by_all_of_it():
    bound = Limit("decode_tps", "least", 20.0)
    assert console.missed_text(bound, 1.0) == "Decode at least 20 tok/s by 100 %"


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    home = ["--home", str(tmp_path / "home")]
    assert program.main(["export", str(tmp_path / "taken"), *home]) == 2
    assert "taken cannot be written (" in capsys.readouterr().err
