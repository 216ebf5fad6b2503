"""Greedy decoding, speculative decoding and the accept rule, against the plainest loop."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.decoding.drafter import Draft, Drafter, Silent
from backend.decoding.greedy import choose, generate
from backend.decoding.model import LanguageModel, Session
from backend.decoding.sampling import acceptance, chosen, residual
from backend.decoding.speculate import speculate, steps
from tests.tiny_model import TinyModel


def plain_loop(model, prompt, count, ignore_end=False):
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(int(model.logits(torch.tensor([tokens]))[0, -1].argmax()))
            if tokens[-1] == model.end_token and not ignore_end:
                break
    return tokens[len(prompt) :]


class Scripted(Drafter):
    """Proposes what a list says, whatever came before."""

    def __init__(self, drafts):
        self.drafts = list(drafts)

    def propose(self, tokens, limit):
        return Draft.chain(self.drafts.pop(0)) if self.drafts else Draft()


class Oracle(Drafter):
    """Knows the answer, except that every `wrong`-th guess is off by one."""

    def __init__(self, answer, start, wrong=0, vocabulary=16):
        self.answer, self.start, self.wrong, self.vocabulary = answer, start, wrong, vocabulary

    def propose(self, tokens, limit):
        done = len(tokens) - self.start
        guess = list(self.answer[done : done + limit])
        if self.wrong:
            guess = [
                (token + 1) % self.vocabulary if (done + place) % self.wrong == 0 else token
                for place, token in enumerate(guess)
            ]
        return Draft.chain(guess)


def test_the_tiny_model_follows_the_protocol():
    model = TinyModel()
    assert isinstance(model, LanguageModel)
    assert isinstance(model.session(1, 4), Session)


def test_the_lowest_id_wins_a_tie():
    assert choose(torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])).tolist() == [1, 0]


def test_choice_is_made_in_fp32_after_the_models_rounding():
    logits = torch.tensor([1.0, 1.001], dtype=torch.bfloat16)
    assert int(choose(logits)) == 0


def test_batched_prompts_of_unequal_length_are_continued_as_each_alone():
    model = TinyModel(seed=3)
    prompts = [[1], [2, 3, 4, 5, 6], [7, 8], [9, 1, 2]]
    written = generate(model, prompts, 20)
    assert [list(each.tokens) for each in written] == [
        plain_loop(model, prompt, 20) for prompt in prompts
    ]
    assert all(len(each.seconds) == len(each.tokens) for each in written)


def test_the_end_token_is_kept_and_ends_a_text():
    free = TinyModel(seed=5)
    expected = plain_loop(free, [3, 1], 12)
    model = TinyModel(seed=5, end=expected[4])
    stop = expected.index(expected[4]) + 1
    assert list(generate(model, [[3, 1]], 12)[0].tokens) == expected[:stop]
    assert list(speculate(model, Silent(), [3, 1], 12).tokens) == expected[:stop]
    assert list(generate(model, [[3, 1]], 12, ignore_end=True)[0].tokens) == expected


def test_every_step_carries_the_logits_it_was_chosen_from():
    model = TinyModel(seed=8)
    expected = plain_loop(model, [4, 4, 2], 15)
    found = list(steps(model, Oracle(expected, 3, 2), [4, 4, 2], 15))
    assert [token for step in found for token in step.tokens] == expected
    assert [token for step in found for token in choose(step.logits).tolist()] == expected


def test_the_same_seed_draws_the_same_text_with_a_sure_drafter_or_none():
    model = TinyModel(seed=3).double()
    plain = [
        token
        for one in steps(model, Silent(), [2, 9], 30, temperature=0.8, seed=5)
        for token in one.tokens
    ]
    drafted = list(steps(model, Oracle(plain, 2, 3), [2, 9], 30, temperature=0.8, seed=5))
    assert [token for step in drafted for token in step.tokens] == plain
    assert len(drafted) < len(plain)


def test_no_prompts_give_no_texts():
    assert generate(TinyModel(), [], 5) == []


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 4),
    prompt=st.lists(st.integers(0, 15), min_size=1, max_size=8),
    drafts=st.lists(st.lists(st.integers(-3, 20), max_size=12), max_size=12),
    limit=st.integers(0, 10),
    count=st.integers(1, 16),
)
def test_no_drafter_however_bad_changes_a_token(seed, prompt, drafts, limit, count):
    model = TinyModel(seed=seed, end=0).double()
    result = speculate(model, Scripted(drafts), prompt, count, limit=limit)
    assert list(result.tokens) == plain_loop(model, prompt, count)
    assert (
        len(result.seconds) == len(result.tokens) == sum(result.accepted) + len(result.accepted) + 1
    )


@pytest.mark.parametrize("wrong", [0, 1, 2, 3, 5])
def test_a_half_right_drafter_is_lossless_and_saves_calls(wrong):
    model = TinyModel(seed=2).double()
    expected = plain_loop(model, [5, 6], 40)
    result = speculate(model, Oracle(expected, 2, wrong), [5, 6], 40, limit=7)
    assert list(result.tokens) == expected
    if wrong == 0:
        assert result.accepted == (7, 7, 7, 7, 6)
        assert result.tokens_per_call == pytest.approx(34 / 5 + 1)
    if wrong == 1:
        assert set(result.accepted) == {0}


def test_time_per_token_comes_from_the_clock_given():
    ticks = iter(range(100))
    model = TinyModel(seed=2)
    result = speculate(model, Silent(), [5], 4, clock=lambda: float(next(ticks)))
    assert result.seconds == (1.0, 2.0, 3.0, 4.0)


def distributions(size):
    weights = st.lists(st.integers(0, 50), min_size=size, max_size=size)
    return weights.filter(any).map(lambda each: np.array(each) / sum(each))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), size=st.integers(2, 8))
def test_accept_lets_out_p_when_integrated_over_its_uniform_number(data, size):
    p, q = data.draw(distributions(size)), data.draw(distributions(size))
    out = np.zeros(size)
    for draft in np.flatnonzero(q):
        chance = acceptance(p, q)[draft]
        cuts = chance + (1 - chance) * np.cumsum(residual(p, q))
        edges = np.unique(np.concatenate([[0.0, chance], np.clip(cuts, 0, 1), [1.0]]))
        for low, high in itertools.pairwise(edges):
            token = chosen(p, [(int(draft), q)], float((low + high) / 2))
            out[token] += q[draft] * (high - low)
    assert np.abs(out - p).max() < 1e-12


def test_a_draft_likelier_under_the_model_is_always_kept():
    assert chosen([0.6, 0.4], [(0, [0.5, 0.5])], 0.999) == 0
    assert chosen([0.25, 0.75], [(0, [0.5, 0.5])], 0.49) == 0
    assert chosen([0.25, 0.75], [(0, [0.5, 0.5])], 0.51) == 1
