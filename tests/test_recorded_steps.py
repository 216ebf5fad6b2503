"""Steps that a GPU would record and replay give what transformers gives, and share their room."""

import pytest
import torch

from backend.measure import size
from backend.models import steady
from backend.models.lean import Lean
from tests import tiny_transformers as tiny
from tests.lean_models import FAMILIES, both, branch, follow, near


@pytest.fixture
def recorded(monkeypatch):
    """As on a GPU, without one: what would be recorded runs again each time; its runs."""
    runs = []

    def capture(run):
        def replay():
            runs.append(run)
            return run()

        return replay

    monkeypatch.setattr(steady, "capture", capture)
    monkeypatch.setattr(Lean, "recorded", True)
    return runs


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_recorded_step_gives_the_logits_of_transformers(family, batch, recorded):
    model = tiny.build(family, **FAMILIES[family])
    lean, plain = both(model)
    expected = follow(plain, batch)
    near(follow(lean, batch), expected)
    assert len(recorded) == 15 - (steady.FIRST - 1)
    near(follow(lean, batch), expected)
    assert len(recorded) == 30 - (steady.FIRST - 1)
    if batch == 1:
        near(branch(lean), branch(plain))
    assert lean.pace == ""


def test_recorded_steps_go_on_beyond_their_span(recorded, monkeypatch):
    monkeypatch.setattr(steady, "SPAN", 8)
    lean, plain = both(tiny.build("llama"))
    tokens = tiny.tokens(1, 40)
    sessions = lean.session(1, 40), plain.session(1, 40)
    found, expected = (
        torch.cat([session.feed(part) for part in tokens.split([3, *[1] * 37], 1)], 1)
        for session in sessions
    )
    near(found, expected)
    assert len({id(run.__self__) for run in recorded}) == 4
    assert len(sessions[0]._bench._steps) == 4


def test_sessions_at_once_never_share_room_and_later_ones_do(recorded):
    lean, _ = both(tiny.build("llama"))
    first, second = lean.session(1, 12), lean.session(1, 12)
    tokens = tiny.tokens(2, 12)
    found = [], []
    for part in tokens.split([4, *[1] * 8], 1):
        for session, row, kept in zip((first, second), part, found, strict=True):
            kept.append(session.feed(row[None]))
    for row, kept in zip(tokens, found, strict=True):
        near(torch.cat(kept, 1), lean.logits(row[None]))
    benches = {id(first._bench), id(second._bench)}
    assert len(benches) == 2
    with torch.inference_mode():
        first._caches[0].held[1].fill_(torch.nan)  # of a model that broke
    del first, session
    third = lean.session(1, 9)
    assert id(third._bench) in benches
    assert third._bench is not second._bench
    near(torch.cat([third.feed(p) for p in tokens[:1].split([4, *[1] * 5, 3], 1)], 1),
         lean.logits(tokens[:1]))  # fmt: skip


def test_of_the_benches_that_nobody_uses_the_last_few_are_kept(recorded):
    lean, _ = both(tiny.build("llama"))
    held = lean.session(1, 4)
    for batch in (2, 3, 4, 5, 6, 2, 6):
        lean.session(batch, 4)
    kept = [one.batch for one in lean._lean._benches]
    assert kept == [1, 4, 5, 2, 6], "the one in use, and four"
    assert held._bench.taken()


def test_a_bench_that_is_longer_than_a_text_makes_its_cache_no_larger(recorded):
    lean, plain = both(tiny.build("llama"))
    expected = {one.name: one.value for one in size.cache_readings(plain)}
    for _ in range(2):  # on benches that are made, then on those that are there
        assert {one.name: one.value for one in size.cache_readings(lean)} == expected
    assert expected["kv_bytes_per_token"] == 2 * 2 * 2 * 8 * 4


def test_what_cannot_be_recorded_runs_as_before(recorded, monkeypatch):
    def refused(_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(steady, "capture", refused)
    lean, plain = both(tiny.build("llama"))
    near(follow(lean), follow(plain))
    assert not recorded
