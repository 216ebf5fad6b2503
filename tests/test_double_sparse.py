"""Double Sparsity: labels found by hand, tokens chosen by brute force, and nothing held twice."""

import pytest
import torch

from backend.caches import IntegerCodec, LabelledCodec
from backend.caches.attention import Queries, attend
from backend.caches.labelled import STEP
from backend.caches.seen import Seen
from backend.methods.cache.double_sparse import DoubleSparse
from tests.looking import Looking, fitted, normal


class Telling:
    """One layer with two heads, whose queries and keys are loud in one channel or another."""

    windows, vocabulary_size, longest = torch.arange(6).view(1, 6), 6, 6

    def __call__(self, tokens):
        length = tokens.shape[1]
        keys = torch.ones(1, 2, length, 4)
        keys[:, 0, :, 2] = 5.0
        keys[:, 1, :, 1] = 3.0
        keys[:, 1, ::2] *= -1
        asked = torch.ones(1, 4, length, 4)
        asked[:, 2:, :, 3] = 10.0  # the group of head 1
        asked[:, 0, :, 0] = -2.0
        return {0: Seen(Queries(asked, 0.5, torch.arange(length)), keys, keys)}


def test_labels_are_the_channels_that_add_most_to_products():
    """By hand: head 0 has 5 in channel 2 and (1 + 2) / 2 in 0; head 1 has 10 in 3 and 3 in 1."""
    tables = LabelledCodec(2, 0.5, 1).learn(Telling())
    assert tables["0.channels"].tolist() == [[2, 0, 1, 3], [3, 1, 0, 2]]


def cache_of(channels, share, least, heads=2, head_dim=8, within=None):
    codec = LabelledCodec(channels, share, least, within)
    return fitted(codec, Looking(heads, head_dim)).layer(0)


def filled(cache, tokens=100, batch=1):
    keys = normal(batch, 2, tokens, 8).bfloat16().float()
    values = normal(batch, 2, tokens, 8, seed=1).bfloat16().float()
    queries = Queries(normal(batch, 4, tokens, 8, seed=2), 0.35, torch.arange(tokens))
    return keys, values, cache.attend(queries, keys, values)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_step_attends_exactly_the_tokens_that_its_labels_find(softcap):
    """Brute force: shares over label channels alone, the mean of a group, the largest tenth."""
    cache = cache_of(3, 0.1, 4)
    keys, values, _ = filled(cache)
    fresh = normal(1, 2, 1, 8, seed=3).bfloat16().float()
    query = normal(1, 4, 1, 8, seed=4)
    asked = Queries(query, 0.35, torch.tensor([100]), softcap=softcap)
    found = cache.attend(asked, fresh, fresh)
    keys, values = torch.cat([keys, fresh], 2), torch.cat([values, fresh], 2)
    for head in range(2):
        labels = cache.order[head, :3].long()
        group = query[0, 2 * head : 2 * head + 2, 0]
        products = 0.35 * group[:, labels] @ keys[0, head][:, labels].T
        if softcap:
            products = softcap * torch.tanh(products / softcap)
        places = products.softmax(-1).mean(0).topk(11).indices  # a tenth of 101
        near = 0.35 * group @ keys[0, head][places].T
        if softcap:
            near = softcap * torch.tanh(near / softcap)
        expected = near.softmax(-1) @ values[0, head][places]
        assert torch.allclose(found[0, 2 * head : 2 * head + 2, 0], expected, atol=1e-5)


def test_a_long_text_and_few_tokens_are_read_whole():
    keys, values, found = filled(cache_of(1, 0.01, 1), STEP + 1)
    asked = Queries(normal(1, 4, STEP + 1, 8, seed=2), 0.35, torch.arange(STEP + 1))
    assert torch.allclose(found, attend(asked, keys, values), atol=1e-5)
    keys, values, found = filled(cache_of(1, 0.01, 50), 50)
    asked = Queries(normal(1, 4, 50, 8, seed=2), 0.35, torch.arange(50))
    assert torch.allclose(found, attend(asked, keys, values), atol=1e-5)


def test_drafts_choose_as_they_would_alone():
    """Each of several tokens attends as many as when it comes by itself."""
    together, alone = cache_of(3, 0.1, 2), cache_of(3, 0.1, 2)
    for cache in (together, alone):
        filled(cache)
    states, asked = normal(1, 2, 5, 8, seed=6), normal(1, 4, 5, 8, seed=7)
    found = together.attend(Queries(asked, 0.35, torch.arange(100, 105)), states, states)
    for place in range(5):
        own = slice(place, place + 1)
        query = Queries(asked[:, :, own], 0.35, torch.tensor([100 + place]))
        one = alone.attend(query, states[:, :, own], states[:, :, own])
        assert torch.allclose(found[:, :, own], one, atol=1e-5)


def test_labels_are_a_part_of_the_keys_and_held_once():
    cache = cache_of(3, 0.1, 4)
    filled(cache)
    assert cache.nbytes == 2 * (2 * 100 * 8 * 2) + 2 * 2 * 8, "and the order of 16 channels"


def test_labels_of_codes_lie_beside_them():
    """By hand: 4 bits and 32 over 32 tokens or 64 channels, and 8 of 64 channels of keys."""
    codec = DoubleSparse(5.75).codec(2, 64)
    assert codec == LabelledCodec(8, 0.0625, 128, IntegerCodec(4, 4, 32, 32))
    assert codec.bits(2, 64) == pytest.approx((4 + 1 + 4 + 0.5) / 2 + 1)
    assert DoubleSparse().codec(2, 64) == LabelledCodec(8, 0.0625, 128)
