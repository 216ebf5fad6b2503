"""RazorAttention: heads that look things up are found, what the others forget is one token."""

import pytest
import torch

from backend.caches import HeadsCodec
from backend.caches.attention import Queries
from backend.caches.heads_codec import attention_to
from backend.caches.seen import Seen
from backend.methods.cache.razor import Razor
from tests.looking import Looking, fitted, normal

VOCABULARY = 40


class Telling:
    """Two layers of two heads, of which head 1 of layer 0 echoes and head 0 of layer 1 inducts."""

    vocabulary_size, longest = VOCABULARY, 64

    def __call__(self, tokens):
        here = torch.nn.functional.one_hot(tokens, VOCABULARY).float()[:, None]
        before = here.roll(1, 2)
        plain = torch.zeros_like(here)
        return {
            0: self._seen([plain, here], here),
            1: self._seen([before, plain], here),
        }

    def _seen(self, keys, asked):
        """Each key-value head serves two query heads; only the second of them asks."""
        length = asked.shape[2]
        queries = torch.cat([torch.zeros_like(asked), asked] * 2, 1)
        keys = torch.cat(keys, 1)
        return Seen(Queries(queries, 50.0, torch.arange(length)), keys, keys)


def test_heads_that_look_back_at_a_token_or_behind_it_are_found():
    tables = HeadsCodec(0.25, 0.25, 1, 4, 4, 64).learn(Telling())
    assert tables["0.heads"].tolist() == [0, 1]
    assert tables["1.heads"].tolist() == [1, 0]


def test_shares_too_small_for_a_head_choose_none():
    tables = HeadsCodec(0.0, 0.2, 1, 4, 4, 64).learn(Telling())
    assert not any(one.any() for one in tables.values())
    assert HeadsCodec(0.0, 0.2, 1, 4, 4, 64).fitted(tables).bits(2, 8) == 0.0


def test_attention_to_earlier_places_by_hand():
    """Four tokens read twice by a head that looks at all it sees alike: place t gives 1 / (t + 1).

    Tokens 4 to 7 look once at themselves before, and once behind that: the mean of 1/5 to 1/8.
    """
    states = torch.zeros(1, 1, 8, 2)
    seen = Seen(Queries(states, 1.0, torch.arange(8)), states, states)
    mean = (1 / 5 + 1 / 6 + 1 / 7 + 1 / 8) / 4
    assert attention_to(seen, 4, 0) == pytest.approx([mean])
    assert attention_to(seen, 4, 1) == pytest.approx([mean])


def cache_of(marks, first=2, window=6, slack=4):
    codec = HeadsCodec(0.25, 0.25, first, window, slack, 64)
    return codec.fitted({"0.heads": torch.tensor(marks, dtype=torch.uint8)}).layer(0)


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_what_was_forgotten_answers_as_that_many_tokens_alike(softcap):
    """Equation 4: the same as if each token that left held the mean of them all."""
    keys, values = normal(2, 3, 40, 8), normal(2, 3, 40, 8, seed=1)
    cache = cache_of([1, 0, 0])
    asked = Queries(normal(2, 6, 40, 8, seed=2), 0.35, torch.arange(40))
    cache.attend(asked, keys, values)
    gone = cache.gone
    assert gone == 32
    whole = []
    for states in (keys, values):
        meant = states.clone()
        left = states[:, 1:, 2 : 2 + gone]
        meant[:, 1:, 2 : 2 + gone] = left.mean(2, keepdim=True).expand_as(left)
        whole.append(torch.cat([meant, normal(2, 3, 1, 8, seed=3)], 2))
    fresh = normal(2, 3, 1, 8, seed=3)
    query = normal(2, 6, 1, 8, seed=4)
    found = cache.attend(Queries(query, 0.35, torch.tensor([40]), softcap=softcap), fresh, fresh)
    products = 0.35 * query @ whole[0].repeat_interleave(2, 1).mT
    if softcap:
        products = softcap * torch.tanh(products / softcap)
    expected = products.softmax(-1) @ whole[1].repeat_interleave(2, 1)
    assert torch.allclose(found, expected, atol=1e-5)


def test_bytes_are_those_of_whole_heads_windows_and_sums():
    cache = cache_of([1, 0, 0])
    states = normal(1, 3, 100, 8).bfloat16()
    cache.attend(Queries(normal(1, 6, 100, 8).bfloat16(), 0.3, torch.arange(100)), states, states)
    assert cache.gone == 92
    assert cache.nbytes == 2 * (100 * 8 * 2 + 2 * 8 * 8 * 2 + 2 * 8 * 4) + 3
    assert cache.length == 100


def test_drafts_leave_no_trace_beside_whole_heads():
    plain, drafted = cache_of([0, 1]), cache_of([0, 1])

    def ask(cache, start, count, seed):
        states = normal(1, 2, count, 8, seed=seed)
        asked = Queries(normal(1, 4, count, 8, seed=9), 0.3, torch.arange(start, start + count))
        return cache.attend(asked, states, states)

    for cache in (plain, drafted):
        ask(cache, 0, 33, 1)
    assert 0 < drafted.croppable <= 3
    ask(drafted, 33, drafted.croppable, 2)
    drafted.pick(33, [])
    assert drafted.length == plain.length == 33
    assert torch.equal(ask(drafted, 33, 5, 3), ask(plain, 33, 5, 3))
    with pytest.raises(ValueError, match="dropped"):
        drafted.crop(10)
    with pytest.raises(TypeError, match="attend"):
        drafted.append(normal(1, 2, 1, 8), normal(1, 2, 1, 8))


def test_a_cache_of_whole_heads_alone_forgets_nothing():
    cache = cache_of([1, 1])
    states = normal(1, 2, 50, 8)
    cache.attend(Queries(states, 0.3, torch.arange(50)), states, states)
    assert cache.croppable > 1000
    assert cache.gone == 0


def test_the_budget_is_shared_between_whole_heads_and_windows():
    """6 bits of 512 tokens: 0.15 of the heads whole, 0.225 / 0.85 of the tokens of the others."""
    codec = Razor(6.0).codec(2, 64)
    assert codec.echo + codec.induction == pytest.approx(0.15)
    assert codec.window == int((0.375 - 0.15) / 0.85 * 512) - 4 - 16 + 1 - 3
    small = Razor(2.0).codec(2, 64)
    assert small.echo + small.induction == pytest.approx(0.0625)
    assert fitted(codec, Looking(8, 16)).bits(8, 16) == 2.0  # one of eight heads
