"""EMS: which tokens stay, which join which, what merging gives, and what it costs, by hand."""

import pytest
import torch

from backend.caches import CondensedCodec
from backend.caches.attention import Queries, attend
from backend.caches.condensed import gathered, homes
from backend.caches.condensed_codec import SLACK, token_bytes
from backend.methods.cache.ems import Ems
from tests.looking import normal


def ask(cache, keys, values, start, queries=None):
    count = keys.shape[2]
    if queries is None:
        queries = normal(keys.shape[0], 2 * keys.shape[1], *keys.shape[2:], seed=9)
    places = torch.arange(start, start + count)
    return cache.attend(Queries(queries.to(keys.dtype), 0.4, places), keys, values)


def test_a_token_joins_the_kept_one_most_alike_or_none():
    """Keys along two axes: the third is nearer to the second, the fourth like neither."""
    keys = torch.tensor([[1.0, 0], [0, 1], [0.3, 0.9], [-1, -1]]).view(1, 1, 4, 2)
    kept, merged = torch.tensor([[[0, 1]]]), torch.tensor([[[2, 3]]])
    home = homes(keys, kept, merged, 0.5)
    assert home.tolist() == [[[1, 2]]]
    sums = gathered(torch.tensor([1.0, 2, 4, 8]).view(1, 1, 4, 1), kept, merged, home)
    assert sums.flatten().tolist() == [1.0, 6.0]


def test_what_is_looked_at_by_all_or_by_the_newest_stays():
    """Token 2 is looked at by everyone, token 5 by the last sixteen alone, 7 by early ones."""
    keys = torch.zeros(1, 1, 48, 4)
    keys[:, :, 2, 0] = keys[:, :, 5, 1] = keys[:, :, 7, 2] = 1.0
    queries = torch.zeros(1, 2, 48, 4)
    queries[..., 0] = 12.0
    queries[:, :, 32:, 1] = 12.0
    queries[:, :, :9, 2] = 6.0
    values = torch.arange(48.0).view(1, 1, 48, 1).expand(1, 1, 48, 4).contiguous()
    cache = CondensedCodec(2, 16, 0.0, 0.5, 64).layer(0)
    ask(cache, keys, values, 0, queries)
    assert cache.held.values[0, 0, :2, 0].tolist() == [2.0, 5.0]
    assert cache.held.values[0, 0, 2:, 0].tolist() == list(range(32, 48))
    assert (cache.length, cache.held.length, cache.gone) == (48, 18, 30)


def test_merging_is_the_mean_by_worth():
    """Two tokens with the same key get the same attention, so that values meet half way."""
    keys = torch.zeros(1, 1, 32, 4)
    keys[:, :, :2, 0] = 3.0
    keys[:, :, 2:16, 1] = 1.0
    queries = torch.zeros(1, 2, 32, 4)
    queries[:, :, 16:, 0] = 5.0
    values = torch.zeros(1, 1, 32, 4)
    values[:, :, 0], values[:, :, 1] = 1.0, 2.0
    cache = CondensedCodec(1, 16, 1.0, 0.9, 64).layer(0)
    ask(cache, keys, values, 0, queries)
    worth = 1.0, float(cache.held.values[0, 0, 0, 0])
    assert worth[1] == pytest.approx(1.5, abs=0.1)
    assert cache.held.keys[0, 0, 0].tolist() == pytest.approx([3.0, 0, 0, 0])


def test_a_kept_token_that_nothing_looked_at_stays_as_it_is():
    """Scores apart by more than float32 can tell leave no attention at all to most tokens."""
    keys = torch.zeros(1, 1, 32, 4)
    keys[:, :, 0, 0] = 1e4
    queries = torch.zeros(1, 2, 32, 4)
    queries[..., 0] = 1.0
    values = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 1, 32, 4).contiguous()
    cache = CondensedCodec(3, 16, 1.0, 0.9, 64).layer(0)
    ask(cache, keys, values, 0, queries)
    assert cache.held.values[0, 0, :3, 0].tolist()[:1] == [0.0]
    assert bool(cache.held.keys.isfinite().all())
    assert cache.held.values[0, 0, :3, 0].tolist() == [0.0, 1.0, 2.0]


def test_until_there_is_too_much_nothing_is_lost():
    cache = CondensedCodec(20, 12, 1.0, 0.5, 64).layer(0)
    keys, values = normal(2, 2, 32, 8), normal(2, 2, 32, 8, seed=1)
    ask(cache, keys, values, 0)
    fresh, query = normal(2, 2, 1, 8, seed=2), normal(2, 4, 1, 8, seed=3)
    found = ask(cache, fresh, fresh, 32, query)
    whole = [torch.cat([part, fresh], 2) for part in (keys, values)]
    expected = attend(Queries(query, 0.4, torch.tensor([32])), *whole)
    assert cache.gone == 0
    assert torch.allclose(found, expected, atol=1e-5)


def test_fed_at_once_or_one_by_one_the_first_look_keeps_the_same():
    keys, values, queries = normal(1, 2, 48, 8), normal(1, 2, 48, 8, seed=1), normal(1, 4, 48, 8)
    caches = [CondensedCodec(9, 16, 1.0, 0.3, 64).layer(0) for _ in range(2)]
    ask(caches[0], keys, values, 0, queries)
    for at in range(48):
        span = slice(at, at + 1)
        ask(caches[1], keys[:, :, span], values[:, :, span], at, queries[:, :, span])
    assert caches[0].nbytes == caches[1].nbytes
    assert caches[0].gone == caches[1].gone
    assert not caches[0].rows.numel()


def test_what_was_condensed_cannot_be_cut_back_to():
    cache = CondensedCodec(4, 4, 1.0, 0.5, 64).layer(0)
    ask(cache, normal(1, 1, 40, 8), normal(1, 1, 40, 8), 0)
    with pytest.raises(ValueError, match="condensed"):
        cache.crop(5)
    with pytest.raises(TypeError, match="attend"):
        cache.append(normal(1, 1, 1, 8), normal(1, 1, 1, 8))


def test_the_budget_counts_all_that_is_held():
    """Heads of 64: 256 bytes of key and value, 8 of sums, 32 of a column of attention."""
    assert token_bytes(64) == 4 * 64 + 8 + 2 * SLACK
    codec = Ems(4.0).codec(2, 64)
    assert codec.kept == 4 * 2 * 64 * 512 // 8 // 296 - 32 - 15
