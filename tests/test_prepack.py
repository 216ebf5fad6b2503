"""Prompts that are read together are what they are alone, in every family; padding costs more."""

import math

import pytest
import torch
from transformers.cache_utils import DynamicCache

from backend import prefilling
from backend.dimensions import Dimensions
from backend.errors import ModelError, RecipeError
from backend.measure import lossless, speed
from backend.methods.anatomy import Anatomy
from backend.methods.decode.prepack import Prepack
from backend.models import packing
from backend.models.language_model import TransformersModel
from backend.prefilling import Prefilling, mixed
from backend.recipes import Recipe
from backend.sizes import size_of
from backend.sources import ModelSource
from tests import tiny_transformers as tiny
from tests.test_measure_speed import Host

PROMPTS = [tiny.tokens(1, length, seed=length)[0].tolist() for length in (25, 9, 40, 1, 15, 6, 3)]
ROWS = Prepack().rows([len(prompt) for prompt in PROMPTS])
WINDOWED = ("mistral", "phi3", "gemma2", "mixtral", "qwen3moe")
CASES = [
    *((family, {}) for family in tiny.CONFIGS),
    *((family, {"sliding_window": 8}) for family in WINDOWED),
]


def test_the_longest_come_first_each_into_the_fullest_row_with_room():
    """By hand: 40 fills a row; 25 and 15 fill one; 9, 6, 3 and 1 share the third."""
    assert ROWS == [[2], [0, 4], [1, 5, 6, 3]]
    assert Prepack(row=64).rows([40, 30, 20, 10]) == [[0, 2], [1, 3]]
    assert Prepack().rows([5]) == [[0]]


def test_no_row_is_longer_than_the_longest_prompt_and_few_are_needed():
    draw = torch.Generator().manual_seed(0)
    for _ in range(50):
        lengths = torch.randint(1, 200, (40,), generator=draw).tolist()
        rows = Prepack().rows(lengths)
        sums = [sum(lengths[place] for place in row) for row in rows]
        assert sorted(place for row in rows for place in row) == list(range(40))
        assert max(sums) == max(lengths)
        fewest = math.ceil(sum(lengths) / max(lengths))
        assert len(rows) <= 11 / 9 * fewest + 1, "the bound of both greedy ways"


@pytest.mark.parametrize(("family", "changes"), CASES, ids=str)
def test_logits_keys_and_values_are_those_of_prompts_alone(family, changes):
    model = tiny.build(family, **changes)
    logits, states = packing.packed(model, PROMPTS, ROWS)
    beside = packing.padded(model, PROMPTS)
    for prompt, own, mine, filled in zip(PROMPTS, logits, states, beside, strict=True):
        cache = DynamicCache()
        with torch.inference_mode():
            alone = model(input_ids=torch.tensor([prompt]), past_key_values=cache).logits[0, -1]
        assert torch.allclose(own, alone, atol=1e-5)
        assert torch.allclose(filled, alone, atol=1e-5), "padding is a fair rival"
        for layer, (keys, values) in zip(cache.layers, mine, strict=True):
            assert torch.allclose(keys, layer.keys, atol=1e-5)
            assert torch.allclose(values, layer.values, atol=1e-5)


@pytest.mark.parametrize(("family", "changes"), CASES, ids=str)
def test_each_prompt_is_written_on_by_itself(family, changes):
    model = TransformersModel(tiny.build(family, **changes))
    _, sessions = model.prefill(PROMPTS, ROWS, room=12)
    further = tiny.tokens(1, 12, seed=77)
    for prompt, session in zip(PROMPTS, sessions, strict=True):
        alone = model.session(1, len(prompt) + 12)
        alone.feed(torch.tensor([prompt]))
        assert session.length == len(prompt)
        for token in further.T:
            fed = token[None]
            assert torch.allclose(session.feed(fed), alone.feed(fed), atol=1e-5)


def test_what_another_prompt_says_changes_no_bit():
    model = tiny.build("llama")
    others = [list(reversed(prompt)) if index else prompt for index, prompt in enumerate(PROMPTS)]
    found, changed = (packing.packed(model, each, ROWS)[0] for each in (PROMPTS, others))
    assert torch.equal(found[0], changed[0])
    assert not torch.equal(found[1], changed[1])


def test_the_proof_finds_no_difference_and_one_where_prompts_see_each_other(monkeypatch):
    model = TransformersModel(tiny.build("llama"))
    reading = Prefilling(Prepack(), model, PROMPTS)
    (found,) = reading.proof(lambda: model, 16)
    assert (found.name, found.value, found.samples) == ("lossless_prefill", 0, 16 * len(PROMPTS))
    apart = packing._masks
    monkeypatch.setattr(packing, "_masks", lambda one, owners: apart(one, owners.clamp(0, 0)))
    (broken,) = reading.proof(lambda: model, 16)
    assert broken.value > 0


def test_differing_ids_are_counted():
    (found,) = lossless.prefill_readings([(1, 2), (3, 4)], [(1, 2), (3, 5)])
    assert (found.name, found.value, found.samples) == ("lossless_prefill", 1, 4)


def test_what_is_not_known_is_refused_beforehand():
    with pytest.raises(RecipeError, match="leave one of both out"):
        Recipe.parse("kv-int@5 + prepack")
    with pytest.raises(ModelError, match="not bloom; leave it out"):
        Prepack().check(Anatomy({}, {"model_type": "bloom"}))
    codec = Recipe.parse("kv-int@8").stages[0].codec(2, 8)
    cached = TransformersModel(tiny.build("llama"), codec)
    with pytest.raises(ModelError, match="leave the cache method out"):
        cached.prefill(PROMPTS, ROWS)


def test_every_family_of_the_tests_is_known_beforehand(tmp_path):
    for family in tiny.CONFIGS:
        source = tiny.save(tiny.build(family), tmp_path / family)
        size_of(Recipe.parse("prepack"), Dimensions.of(source))
    dimensions = Dimensions.of(ModelSource.parse("default"))
    assert size_of(Recipe.parse("prepack"), dimensions) == size_of(Recipe(()), dimensions)


def test_prompts_of_mixed_lengths_grow_by_equal_parts():
    prompts = mixed(list(range(100)), 128)
    lengths = [len(prompt) for prompt in prompts]
    assert (len(lengths), lengths[0], lengths[-1]) == (prefilling.COUNT, 8, 128)
    assert lengths == sorted(lengths)
    assert lengths[12] / lengths[11] == pytest.approx(16 ** (1 / 15), rel=0.02)
    assert prompts[1][0] == 8, "one goes on where the other ended"
    assert max(len(prompt) for prompt in mixed([1, 2], 4)) == 4


def test_rate_and_ratio_of_planted_times():
    """100 tokens in 0.01 s together, in 0.03 s padded."""
    host = Host()
    report = speed.measure_prefill(
        lambda: host.work(0.01),
        lambda: host.work(0.03),
        tokens=100,
        device=torch.device("cpu"),
        note="by hand",
        clock=host.clock,
    )
    told = {each.name: each for each in report.readings}
    assert told["prefill_tps_mixed"].value == pytest.approx(10_000)
    assert told["prefill_speedup_mixed"].value == pytest.approx(3)
    assert told["prefill_speedup_mixed"].low <= 3 <= told["prefill_speedup_mixed"].high
    assert "by hand; padded 3333 tok/s" in told["prefill_speedup_mixed"].note


def test_the_gain_is_told_with_what_was_read(monkeypatch):
    """Eight to 128 tokens by the 15th root of 16, added up: 719; sixteen times 128 are 2,048."""
    monkeypatch.setattr(prefilling, "LEAST_SECONDS", 0.2)
    model = TransformersModel(tiny.build("llama"))
    readings = Prefilling(Prepack(), model, PROMPTS).gain(list(range(3, 60)), 4096, 0.2)
    told = {one.name: one for one in readings}
    assert told.keys() == {"prefill_tps_mixed", "prefill_speedup_mixed"}
    assert sum(round(8 * 16 ** (step / 15)) for step in range(16)) == 719
    for one in told.values():
        assert one.value > 0
        assert "16 prompts of 8 to 128 tokens, 719 in all; rows hold 768, padded 2,048" in one.note
