"""LM-Infinite: who sees whom, what is dropped, and the distance limit, by brute force."""

import pytest
import torch

from backend.caches import WindowCodec
from backend.caches.attention import Queries
from backend.methods.cache.window import Window
from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lambda_mask(length, first, window):
    """Figure 2 of the paper: the first tokens, and those less than a window back."""
    rows, columns = torch.arange(length)[:, None], torch.arange(length)
    return (columns <= rows) & ((columns < first) | (rows - columns < window))


@pytest.mark.parametrize("steps", [[40], [1] * 40, [17, 1, 5, 16, 1]])
def test_every_token_sees_the_first_ones_and_its_own_window(steps):
    queries, keys, values = (normal(2, heads, 40, 8, seed=heads) for heads in (4, 2, 2))
    cache = WindowCodec(3, 7, 4, 1000, 64).layer(0)
    found, start = [], 0
    for count in steps:
        span = slice(start, start + count)
        asked = Queries(queries[:, :, span], 0.3, torch.arange(start, start + count))
        found.append(cache.attend(asked, keys[:, :, span], values[:, :, span]))
        start += count
    scores = 0.3 * queries @ keys.repeat_interleave(2, 1).mT
    scores = scores.masked_fill(~lambda_mask(40, 3, 7), -torch.inf)
    expected = scores.softmax(-1) @ values.repeat_interleave(2, 1)
    assert torch.allclose(torch.cat(found, 2), expected, atol=1e-5)


def test_what_is_dropped_is_freed():
    cache = WindowCodec(4, 20, 16, 1000, 64).layer(0)
    for _ in range(50):
        cache.append(normal(1, 2, 10, 8), normal(1, 2, 10, 8))
        assert cache.held.length < 4 + 20 + 16
    assert cache.length == 500
    storages = sum(part.untyped_storage().nbytes() for part in cache.tensors())
    assert storages == cache.nbytes == 2 * 2 * cache.held.length * 8 * 4


def test_tokens_that_were_dropped_cannot_be_cut_back_to():
    cache = WindowCodec(2, 4, 4, 100, 64).layer(0)
    cache.append(normal(1, 1, 30, 8), normal(1, 1, 30, 8))
    with pytest.raises(ValueError, match="dropped"):
        cache.crop(10)


def rotary(states, positions, base=100.0):
    half = states.shape[-1] // 2
    angles = positions.float()[:, None] * base ** (-torch.arange(half) / half)
    first, second = states[..., :half], states[..., half:]
    return torch.cat(
        [
            first * angles.cos() - second * angles.sin(),
            second * angles.cos() + first * angles.sin(),
        ],
        -1,
    )


def test_the_first_tokens_are_never_further_than_the_limit():
    """Section 3.2: distance min(d, limit); here every pair turned by its own distance."""
    length, first, window, limit = 30, 3, 6, 9
    queries, keys, values = (normal(1, 1, length, 8, seed=seed) for seed in range(3))
    places = torch.arange(length)
    cache = WindowCodec(first, window, 4, limit, 64).layer(0)
    found = []
    for place in range(length):
        at = torch.tensor([place])
        asked = Queries(rotary(queries[:, :, place : place + 1], at), 0.5, at, turn=rotary)
        new = rotary(keys[:, :, place : place + 1], at), values[:, :, place : place + 1]
        found.append(cache.attend(asked, *new))
    distance = (places[:, None] - places).clamp(max=limit)
    scores = torch.zeros(length, length)
    for row in range(length):
        turned = rotary(queries[0, 0, row].expand(length, -1), distance[row])
        scores[row] = 0.5 * (turned * keys[0, 0]).sum(-1)
    scores = scores.masked_fill(~lambda_mask(length, first, window), -torch.inf)
    assert torch.allclose(torch.cat(found, 2)[0, 0], scores.softmax(-1) @ values[0, 0], atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi", "neox", "mixtral", "gemma2"])
def test_a_models_rotary_embedding_is_found_and_tried(family):
    model = TransformersModel(tiny.build(family))
    assert model.turn is not None
    session = model.session(1, 4)
    session.feed(tiny.tokens(1, 4))


@pytest.mark.parametrize("family", ["llama", "gemma2", "neox"])
def test_the_limit_acts_in_a_model_and_only_beyond_it(family):
    """Up to the limit the text is that of no limit; beyond, the first tokens come nearer."""
    network, tokens = tiny.build(family), tiny.tokens(1, 60)
    found = []
    for limit in (20, 1000):
        session = TransformersModel(network, WindowCodec(4, 12, 16, limit, 64)).session(1, 60)
        parts = [session.feed(part) for part in tokens.split([10, *[1] * 50], dim=1)]
        found.append(torch.cat(parts, 1)[0])
        assert session.length == 60
    assert torch.allclose(found[0][:21], found[1][:21], atol=1e-4)
    assert not torch.allclose(found[0][-1], found[1][-1], atol=1e-3)
    assert torch.isfinite(found[0]).all()


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_positions_that_are_learned_are_no_turn(family):
    assert TransformersModel(tiny.build(family)).turn is None


def test_a_budget_is_met_at_its_context():
    """4 of 16 bits at 512 tokens: 128 tokens, 15 of them on their way out."""
    codec = Window(4.0).codec(2, 64)
    assert codec.first + codec.window + codec.slack - 1 == 128
