"""The benchmark of compressing: nothing is measured twice, and the page tells what is known."""

import json

import pytest

from backend.methods import catalogue
from docs.benchmarks import compress


def test_what_is_kept_is_not_measured_again_and_what_was_broken_off_goes_on(tmp_path):
    kept, asked = tmp_path / "kept.json", []

    def measure(key, subject):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append((key, subject))
        return {"cpu_seconds": 1.25, "peak_bytes": 2_000_000}

    wanted = kept, ["rtn", "flap", "kv-int"], ["4096x4096", "embedded"]
    with pytest.raises(KeyboardInterrupt):
        compress.fill(*wanted, measure)
    assert asked == [("rtn", "4096x4096"), ("rtn", "embedded")]
    compress.fill(*wanted, lambda *_: {"failed": "over 1800 s"})
    known = json.loads(kept.read_text())
    assert list(known) == ["flap on embedded", "rtn on 4096x4096", "rtn on embedded"]
    text = compress.page(known)
    assert "| `rtn` | 1.25 s, 2 MB | 1.25 s, 2 MB |  |" in text
    assert "| `flap` | over 1800 s | rewrites models | rewrites models |" in text
    assert "kv-int" not in text


def test_what_has_no_layer_says_why_and_can_be_shown_on_a_block():
    subjects = "embedded", "4096x4096", compress.BLOCK
    told = {
        key: [compress._left_out(key, subject) for subject in subjects]
        for key in ("cbq", "ziplm", "perp", "m-fac", "eora", "kv-int")
    }
    assert told == {
        "cbq": ["", "learns over blocks", ""],
        "ziplm": ["", "rewrites models", ""],
        "perp": ["", "trains models", ""],
        "m-fac": ["", "", "by layers"],
        "eora": ["", "", "by layers"],
        "kv-int": ["no weights"] * 3,
    }
    known = {f"cbq on {compress.BLOCK}": {"cpu_seconds": 900.0, "peak_bytes": 3_000_000_000}}
    assert "|  | learns over blocks | learns over blocks | 900 s, 3000 MB |" in compress.page(known)


def test_every_method_of_weights_has_a_recipe_and_a_column():
    for key, cls in catalogue().items():
        if cls.family() not in ("cache", "decode"):
            assert compress._left_out(key, "embedded") == "", key
            assert key in str(compress._recipe(key).text())


@pytest.mark.parametrize("key", ["cbq", "ziplm", "perp"])
def test_a_block_is_compressed_whole(key, monkeypatch):
    monkeypatch.setattr(compress, "ON_BLOCK", compress.ON_BLOCK | {"windows": 4, "length": 16})
    assert compress._measured(key, "block 32x64")["cpu_seconds"] > 0


@pytest.mark.parametrize("key", ["rtn", "eora", "dfloat11", "m-fac", "comet", "ap-int"])
def test_a_layer_is_timed_by_the_method_alone(key):
    found = compress._measured(key, "128x256")
    assert 0 < found["cpu_seconds"] < 60
    assert found["peak_bytes"] >= 0


def test_what_takes_longer_than_the_limit_is_given_up_and_says_so():
    assert compress._apart("rtn", "128x256", limit=0.01) == {"failed": "over 0.01 s"}
