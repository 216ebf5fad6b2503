"""CopySpec: what it proposes, and that the text stays that of greedy decoding."""

import pytest
import torch

from backend.caches import IntegerCodec
from backend.decoding.greedy import generate
from backend.decoding.speculate import speculate
from backend.methods.decode.copyspec import Copyspec
from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny


def test_what_followed_the_same_tokens_last_is_proposed():
    text = [1, 2, 3, 4, 5, 9, 1, 2, 3, 7, 8, 6, 1, 2, 3]
    drafter = Copyspec(match_length=3, draft_length=4).drafter()
    assert list(drafter.propose(text, 8).tokens) == [7, 8, 6, 1]
    assert list(drafter.propose(text, 2).tokens) == [7, 8]
    assert list(drafter.propose([*text, 7], 8).tokens) == [8, 6, 1, 2]
    assert list(drafter.propose([*text, 7, 5], 8).tokens) == []


def test_nothing_is_proposed_where_nothing_repeats():
    drafter = Copyspec(match_length=2).drafter()
    assert list(drafter.propose([], 8).tokens) == []
    assert list(drafter.propose([1], 8).tokens) == []
    assert list(drafter.propose([1, 2], 8).tokens) == []
    assert list(drafter.propose([1, 2, 3, 4], 8).tokens) == []


def test_a_run_of_one_token_goes_on():
    drafter = Copyspec(match_length=2, draft_length=3).drafter()
    assert list(drafter.propose([5, 5, 5], 8).tokens) == [5]


@pytest.mark.parametrize("match_length", [1, 2, 5])
def test_proposals_are_those_of_a_search_through_the_whole_text(match_length):
    generator = torch.Generator().manual_seed(match_length)
    text = torch.randint(0, 3, (300,), generator=generator).tolist()
    drafter = Copyspec(match_length=match_length, draft_length=6).drafter()
    length = 1
    while length < 300:
        seen = text[:length]
        ends = [
            end
            for end in range(match_length, length)
            if seen[end - match_length : end] == seen[length - match_length :]
        ]
        expected = seen[ends[-1] : ends[-1] + 6] if ends and length >= match_length else []
        assert list(drafter.propose(seen, 6).tokens) == expected
        length += 1 + length % 4


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "gpt2", "neox", "mixtral"])
@pytest.mark.parametrize("match_length", [1, 3])
def test_the_text_is_that_of_plain_greedy_decoding(family, match_length):
    model = TransformersModel(tiny.build(family))
    accepted = 0
    for seed in range(4):
        prompt = tiny.tokens(1, 10, seed=seed)[0].tolist() * 2
        (plain,) = generate(model, [prompt], 40, ignore_end=True)
        drafter = Copyspec(match_length=match_length).drafter()
        fast = speculate(model, drafter, prompt, 40, ignore_end=True)
        assert fast.tokens == plain.tokens
        accepted += sum(fast.accepted)
    assert accepted > 0 or match_length > 1 or family == "gemma3"  # its window is soon full


@pytest.mark.parametrize("window", [0, 5, 32])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_text_with_a_cache_method_is_that_of_the_same_cache_token_by_token(bits, window):
    """No draft makes the cache round what it holds, so nothing is rounded before its time."""
    model = TransformersModel(tiny.build("llama"), IntegerCodec(bits, bits, 16, window))
    accepted = 0
    for seed in range(4):
        prompt = tiny.tokens(1, 10, seed=seed)[0].tolist() * 3
        (plain,) = generate(model, [prompt], 60, ignore_end=True)
        fast = speculate(model, Copyspec(match_length=1).drafter(), prompt, 60, ignore_end=True)
        assert fast.tokens == plain.tokens
        accepted += sum(fast.accepted)
    assert accepted > 0


def test_a_sliding_window_of_the_models_own_is_never_asked_to_come_back():
    model = TransformersModel(tiny.build("gemma3"))
    session = model.session(1, 40)
    session.feed(tiny.tokens(1, 10))
    assert session.croppable() == 16 - 1 - 10
    session.feed(tiny.tokens(1, 5))
    session.crop(10)
    session.feed(tiny.tokens(1, 10))
    assert session.croppable() == 0


def test_the_end_token_ends_it():
    network = tiny.build("llama")
    model = TransformersModel(network)
    prompt = tiny.tokens(1, 12)[0].tolist()
    (plain,) = generate(model, [prompt], 30, ignore_end=True)
    model.end_token = plain.tokens[10]
    (ended,) = generate(model, [prompt], 30)
    fast = speculate(model, Copyspec(match_length=1).drafter(), prompt, 30)
    assert fast.tokens == ended.tokens
    assert fast.tokens[-1] == model.end_token
