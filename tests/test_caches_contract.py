"""What every cache method of the catalogue promises; names no method."""

import itertools

import pytest
import torch

from backend.caches.attention import Queries
from backend.caches.base import DenseLayerCache
from backend.errors import OutOfReachError
from tests.contract import (
    CACHE,
    CACHES,
    METHODS,
    normal,
)
from tests.looking import made


def states_of(tokens, heads, head_dim, dtype=torch.bfloat16, batch=1):
    loud = torch.exp(normal(head_dim, seed=8))
    keys = normal(batch, heads, tokens, head_dim, seed=1) * loud
    return keys.to(dtype), normal(batch, heads, tokens, head_dim, seed=2).to(dtype)


def ask(cache, keys, values, start=0, seed=9):
    """What queries for new tokens, two to each key-value head, find in a cache."""
    count = keys.shape[2]
    states = normal(keys.shape[0], 2 * keys.shape[1], *keys.shape[2:], seed=seed).to(keys.dtype)
    queries = Queries(states, keys.shape[3] ** -0.5, torch.arange(start, start + count))
    return cache.attend(queries, keys, values)


def codec_least(method, heads, head_dim):
    bits = 2.0
    while True:
        try:
            method.at(bits).codec(heads, head_dim)
        except OutOfReachError:
            bits += 0.25
        else:
            return bits


def fitting(method, heads, head_dim):
    """A codec of the method's own budget, or of the least that heads of this size allow."""
    least = codec_least(method, heads, head_dim)
    return made(method.at(max(least, method.settings()[method.level])), heads, head_dim)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("heads", "head_dim"), [(2, 64), (1, 20), (4, 36)])
@pytest.mark.parametrize("method", CACHES)
def test_a_cache_grows_by_at_most_its_budget_for_each_token(method, heads, head_dim, dtype):
    low = codec_least(method, heads, head_dim)
    for bits in (low, low + 1.5, low + 3):
        codec = made(method.at(bits), heads, head_dim)
        sizes, cache = [], codec.layer(0)
        full = codec.context or 512
        for tokens in (full, full + 512):
            # Of a long context a piece at a time: all at once, attention takes their square.
            while cache.length < tokens:
                piece = min(512, tokens - cache.length)
                ask(cache, *states_of(piece, heads, head_dim, dtype), start=cache.length)
            assert cache.length == tokens
            assert cache.nbytes == sum(tensor.nbytes for tensor in cache.tensors())
            sizes.append(cache.nbytes)
        found = 8 * (sizes[1] - sizes[0]) / (512 * 2 * heads * head_dim)
        assert found == pytest.approx(codec.bits(heads, head_dim), abs=1e-9)
        assert found <= bits + 1e-9


BOUNDED = [method for method in CACHES if method.values[0].at(16).codec(2, 64).context is not None]


@pytest.mark.parametrize("method", BOUNDED)
def test_a_cache_that_stops_growing_takes_at_most_its_budget_at_its_context(method):
    for bits in (2.5, 5.0, 8.0):
        codec = made(method.at(bits), 2, 64)
        cache = codec.layer(0)
        for start in range(0, codec.context, 8):
            states = states_of(8, 2, 64)
            ask(cache, *states, start=start)
            assert 8 * cache.nbytes <= bits * codec.context * 2 * 2 * 64


@pytest.mark.parametrize("key", CACHE)
def test_a_larger_budget_of_a_cache_is_never_worse(key):
    cls = METHODS[key]
    low = codec_least(cls(), 2, 64)
    keys, values = states_of(256, 2, 64)
    exact = DenseLayerCache()
    ask(exact, keys, values)
    expected = ask(exact, *states_of(1, 2, 64), start=256, seed=3).float()
    errors = []
    for step in range(6):
        cache = made(cls().at(low + step * (10 - low) / 5), 2, 64).layer(0)
        ask(cache, keys, values)
        found = ask(cache, *states_of(1, 2, 64), start=256, seed=3).float()
        errors.append(float((found - expected).square().mean() / expected.square().mean()))
    assert all(after <= 1.02 * before + 1e-6 for before, after in itertools.pairwise(errors))
    assert errors[-1] < errors[0]


@pytest.mark.parametrize("method", CACHES)
def test_tokens_fed_at_once_are_held_as_tokens_fed_one_by_one(method):
    """So that the text does not depend on how it was read; probes alone may look further."""
    keys, values = states_of(150, 2, 32, batch=2)
    whole, slow = (fitting(method, 2, 32).layer(0) for _ in range(2))
    ask(whole, keys, values)
    for place in range(150):
        ask(slow, keys[:, :, place : place + 1], values[:, :, place : place + 1], start=place)
    assert (whole.length, whole.croppable) == (slow.length, slow.croppable)
    assert whole.nbytes == slow.nbytes


@pytest.mark.parametrize("method", CACHES)
def test_drafts_that_a_cache_allows_leave_no_trace(method):
    """Appended up to `croppable`, refused in part, picked from a tree: as if never fed."""
    keys, values = states_of(100, 2, 32)
    more = states_of(40, 2, 32)
    plain, drafted = (fitting(method, 2, 32).layer(0) for _ in range(2))
    for cache in (plain, drafted):
        ask(cache, keys, values)
    room = min(drafted.croppable, 5)
    assert room > 2
    kept = [0, 2]
    ask(drafted, *(part[:, :, :room] for part in more), start=100)
    drafted.pick(100, kept)
    ask(plain, *(part[:, :, :room][:, :, kept] for part in more), start=100)
    assert drafted.length == plain.length == 102
    states = states_of(60, 2, 32)
    found = [ask(cache, *states, start=102) for cache in (plain, drafted)]
    assert (found[0] - found[1]).abs().max() <= 0.02 * found[0].abs().max()
    assert drafted.nbytes == plain.nbytes


@pytest.mark.parametrize("method", CACHES)
def test_a_cache_answers_a_batch_as_its_sequences_alone(method):
    keys, values = states_of(120, 2, 32, torch.float32, batch=3)
    together = fitting(method, 2, 32).layer(0)
    queries = normal(3, 4, 120, 32, seed=4)
    own = []
    for row in range(3):
        alone = fitting(method, 2, 32).layer(0)
        asked = Queries(queries[row : row + 1], 0.2, torch.arange(120))
        alone.attend(asked, keys[row : row + 1], values[row : row + 1])
        asked = Queries(queries[row : row + 1, :, :1], 0.2, torch.tensor([120]))
        own.append(alone.attend(asked, keys[row : row + 1, :, :1], values[row : row + 1, :, :1]))
    together.attend(Queries(queries, 0.2, torch.arange(120)), keys, values)
    asked = Queries(queries[:, :, :1], 0.2, torch.tensor([120]))
    found = together.attend(asked, keys[:, :, :1], values[:, :, :1])
    assert torch.allclose(found, torch.cat(own), atol=1e-4)
