"""The benchmark of compressing: nothing is measured twice, and the page tells what is known."""

import json

import pytest

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
    assert "| `flap` | over 1800 s |  |  |" in text
    assert "kv-int" not in text


@pytest.mark.parametrize("key", ["rtn", "eora", "dfloat11"])
def test_a_layer_is_timed_by_the_method_alone(key):
    found = compress._measured(key, "128x256")
    assert 0 < found["cpu_seconds"] < 60
    assert found["peak_bytes"] >= 0
