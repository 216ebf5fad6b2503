"""Readings and the catalogue that gives them meaning."""

import json
import math
import subprocess
import sys

import pytest

from backend.measure.reading import FAMILIES, METRICS, Reading, metric, take

PROMISED = [
    "kld_mean",
    "kld_p50",
    "kld_p90",
    "kld_p99",
    "kld_max",
    "kld_conf_0",
    "kld_conf_1",
    "kld_conf_2",
    "kld_conf_3",
    "kld_conf_4",
    "kld_floor",
    "dnll",
    "ppl_ratio",
    "ppl",
    "bpb",
    "top1_agree",
    "conf_flip",
    "rms_dp",
    "mnn_ratio",
    "nonfinite",
    "ability_facts",
    "flips",
    "disk_bytes",
    "resident_bytes",
    "bpw_eff",
    "bpw_linear",
    "peak_bytes",
    "kv_bytes_per_token",
    "kv_fixed_bytes",
    "load_s",
    "compress_s",
    "compress_peak",
    "prefill_tps",
    "decode_tps",
    "decode_tps_8",
    "prefill_speedup",
    "decode_speedup",
    "decode_speedup_8",
    "ttft_ms",
    "tpot_ms",
    "mean_accepted",
    "exact_len",
    "ident_rate",
    "rep4",
    "loop",
    "len_ratio",
    "self_nll",
    "needle_single_128_50",
    "kld_pressure_mean",
    "lossless_l1",
]


@pytest.mark.parametrize("name", PROMISED)
def test_every_promised_metric_is_in_the_catalogue(name):
    about = metric(name)
    assert about.name == name
    assert about.title
    assert about.help.endswith(".")
    assert about.direction in ("lower", "higher", "none")
    assert about.unit or name == "ppl"


def test_keys_of_the_catalogue_are_the_names():
    assert all(key == each.name for key, each in (METRICS | FAMILIES).items())


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(KeyError, match="kld_mean"):
        metric("kld_meen")


def test_unit_and_direction_come_from_the_catalogue():
    (found,) = take("top1_agree", 99, 98, math.inf, samples=7, note="x")
    assert found == Reading("top1_agree", 99.0, 98.0, None, "%", "higher", "measured", 7, "x")


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_could_not_be_measured_is_absent(value):
    assert take("kld_mean", value) == []


def test_a_reading_never_holds_a_number_that_is_none():
    with pytest.raises(ValueError, match="left out"):
        Reading("kld_mean", math.nan)
    with pytest.raises(ValueError, match="left out"):
        Reading("kld_mean", 1.0, low=-math.inf)


def test_a_reading_survives_strict_json():
    (found,) = take("kld_mean", 0.1, 0.05, None, samples=3)
    assert Reading.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


@pytest.mark.parametrize(
    "fields",
    [
        {"value": 1.0},
        {"name": "kld_mean"},
        {"name": "kld_mean", "value": "1"},
        {"name": "kld_mean", "value": True},
        {"name": "kld_mean", "value": 1.0, "extra": 1},
        {"name": "kld_mean", "value": 1.0, "low": "0"},
    ],
)
def test_foreign_json_is_refused(fields):
    with pytest.raises(ValueError, match="reading"):
        Reading.from_json(fields)


def test_what_the_web_process_uses_loads_without_torch():
    modules = ["reading", "statistics", "fronts", "scores", "hardware", "evaluation"]
    program = "import sys\n" + "".join(f"import backend.measure.{name}\n" for name in modules)
    program += "import backend.decoding.drafter\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
