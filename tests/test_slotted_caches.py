"""Caches as a GPU asks them: the states, bytes and answers of the cache that they stand for."""

import pytest
import torch

from backend.caches.attention import Queries
from backend.caches.codecs import IntegerCodec
from backend.caches.integer import IntegerLayerCache
from backend.caches.slotted import SlottedLayerCache
from backend.models.language_model import TransformersModel
from backend.models.place import put
from tests import tiny_transformers as tiny
from tests.pretended_gpu import GPU, pretended

CODECS = {
    "keys by channel": IntegerCodec(4, 2, 16, 20),
    "keys by token": IntegerCodec(8, 4, 16, 0, keys_by_channel=False),
}
BATCH, HEADS, ASKED, CHANNELS = 2, 2, 6, 16


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def step(count, seed):
    queries = Queries(draw(BATCH, ASKED, count, CHANNELS, seed=seed), 0.25, torch.arange(count))
    states = (draw(BATCH, HEADS, count, CHANNELS, seed=seed + k) for k in (1, 2))
    return queries, *states


@pytest.mark.parametrize("name", CODECS)
def test_answers_bytes_and_states_are_those_of_the_plain_cache(name):
    codec = CODECS[name]
    plain, words = IntegerLayerCache(codec), SlottedLayerCache(codec)
    for number, count in enumerate([40, *[1] * 20, 3, 1, 1]):
        asked = step(count, 10 * number)
        wanted, found = plain.attend(*asked).float(), words.attend(*asked).float()
        assert (found - wanted).norm() < 1e-2 * wanted.norm()  # each rounded to bfloat16
        assert (words.length, words.nbytes, words.chunks) == (
            plain.length,
            plain.nbytes,
            plain.chunks,
        )
    assert plain.chunks > 1
    for mine, theirs in zip(
        words._decode(torch.float32), plain._decode(torch.float32), strict=True
    ):
        assert torch.equal(mine, theirs)
    for cache in (plain, words):
        cache.pick(30, (0, 2))
    assert (words.length, words.nbytes) == (plain.length, plain.nbytes) == (32, plain.nbytes)
    asked = step(1, 1000)
    wanted, found = plain.attend(*asked).float(), words.attend(*asked).float()
    assert (found - wanted).norm() < 1e-2 * wanted.norm()


def test_one_token_is_answered_over_the_codes_by_hand():
    codec = IntegerCodec(8, 8, 16, 0)
    cache = SlottedLayerCache(codec)
    queries, keys, values = step(16, 1)
    cache.attend(queries, keys, values)
    assert (cache.chunks, cache.recent.length) == (1, 0)
    held = [part.double() for part in cache._decode(torch.float32)]
    asked, key, value = step(1, 2)
    found = cache.attend(asked, key, value)
    for text in range(BATCH):
        for head in range(ASKED):
            own = head // (ASKED // HEADS)
            every = torch.cat([held[0][text, own], key[text, own].double()])
            shares = (every @ asked.states[text, head, 0].double() * 0.25).softmax(0)
            wanted = shares @ torch.cat([held[1][text, own], value[text, own].double()])
            assert (found[text, head, 0].double() - wanted).abs().max() < 0.02


@pytest.mark.parametrize(
    ("codec", "head_dim", "expected"),
    [
        (IntegerCodec(4, 2, 32, 32), 64, True),
        (IntegerCodec(3, 2, 32, 32), 64, False),  # no such width in words
        (IntegerCodec(4, 2, 32, 32), 48, False),
        (IntegerCodec(4, 2, 32, 32), 8, False),
    ],
)
def test_what_fills_no_words_stays_as_it_is(codec, head_dim, expected):
    assert codec.on_gpu(head_dim).in_words is expected


@pytest.mark.parametrize("name", CODECS)
def test_a_model_on_a_gpu_asks_its_codes_by_the_operation(name, monkeypatch):
    shape = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1}
    network = tiny.build("llama", dtype=torch.bfloat16, **shape)
    tokens, codec = tiny.tokens(2, 60), CODECS[name]
    counts = [50, *[1] * 10]

    def read(model, place):
        session = model.session(2, 60)
        parts = [session.feed(part.to(place)) for part in tokens.split(counts, dim=1)]
        return torch.cat(parts, 1), session.cache_bytes()

    expected, held = read(TransformersModel(network, codec), "cpu")
    with pretended(monkeypatch) as called:
        found, there = read(TransformersModel(put(network, GPU), codec), GPU)
        assert called["kv_decode_attn"] == 10  # each token after the prompt, one block
        assert called["kv_quant"] >= 2
        assert there == held
        assert (found.cpu() - expected).float().norm() < 0.02 * expected.float().norm()
