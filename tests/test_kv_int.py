"""Integer keys and values, by hand."""

import pytest
import torch

from backend.caches import IntegerCodec
from backend.caches.base import DenseLayerCache
from backend.errors import OutOfReachError
from backend.methods.cache.kv_int import KvInt
from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny


def normal(*shape, seed=0, dtype=torch.bfloat16):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_codes_by_hand():
    """Two bits: a channel of keys over tokens, a token of values over channels."""
    keys = torch.tensor([[0.0, 4.0], [3.0, 10.0], [1.4, 4.0], [1.6, 5.0]]).view(1, 1, 4, 2)
    values = torch.tensor([[0.0, 3.0], [1.0, 1.0], [-3.0, 0.0], [2.0, 8.0]]).view(1, 1, 4, 2)
    cache = IntegerCodec(2, 2, 4, 0).layer(0)
    cache.append(keys.bfloat16(), values.bfloat16())
    key, value = cache.keys, cache.values
    assert cache.chunks == 1
    assert key.scales.flatten().tolist() == [1, 2]
    assert key.offsets.flatten().tolist() == [0, 4]
    # codes of the tokens, two bits each, the first channel lowest
    codes = [(0, 0), (3, 3), (1, 0), (2, 0)]  # 5 lies between codes 0 and 1: even wins
    assert key.planes[2].flatten().tolist() == [a | b << 2 for a, b in codes]
    decoded = key.decode(2, torch.bfloat16)
    assert decoded.flatten(0, 2).tolist() == [[0, 4], [3, 10], [1, 4], [2, 4]]
    assert value.scales.flatten().float().tolist() == pytest.approx([1, 0, 1, 2], abs=1e-6)
    decoded = value.decode(2, torch.bfloat16)
    assert torch.equal(decoded, values.bfloat16()), "two channels are the ends of a range"
    assert cache.nbytes == 2 * 4 + 2 * 2 * 2 + 2 * 4 * 2


def test_the_newest_tokens_stay_exact_and_chunks_leave_when_full():
    keys, values = normal(1, 2, 50, 16), normal(1, 2, 50, 16, seed=1)
    cache = IntegerCodec(2, 2, 16, 8).layer(0)
    for place in range(50):
        seen = cache.append(keys[:, :, place : place + 1], values[:, :, place : place + 1])
        assert seen[0].shape == (1, 2, place + 1, 16)
        assert torch.equal(seen[0][:, :, -8:], keys[:, :, max(0, place - 7) : place + 1])
        assert torch.equal(seen[1][:, :, -8:], values[:, :, max(0, place - 7) : place + 1])
        assert 8 <= cache.recent.length < 24 or place < 8
    assert cache.chunks == 2
    assert cache.length == 50


def test_tokens_fed_at_once_are_held_as_tokens_fed_one_by_one():
    keys, values = normal(2, 2, 70, 16), normal(2, 2, 70, 16, seed=1)
    whole, slow = (IntegerCodec(3, 2, 16, 8).layer(0) for _ in range(2))
    whole.append(keys, values)
    for place in range(70):
        slow.append(keys[:, :, place : place + 1], values[:, :, place : place + 1])
    assert whole.nbytes == slow.nbytes
    for a, b in zip(whole.tensors(), slow.tensors(), strict=True):
        assert torch.equal(a, b)


def test_a_batch_is_held_as_its_sequences_are_alone():
    keys, values = normal(3, 2, 40, 16), normal(3, 2, 40, 16, seed=1)
    together = IntegerCodec(4, 4, 16, 0).layer(0)
    together.append(keys, values)
    seen = together.append(keys[:, :, :1], values[:, :, :1])
    for row in range(3):
        alone = IntegerCodec(4, 4, 16, 0).layer(0)
        alone.append(keys[row : row + 1], values[row : row + 1])
        own = alone.append(keys[row : row + 1, :, :1], values[row : row + 1, :, :1])
        assert all(torch.equal(a[row : row + 1], b) for a, b in zip(seen, own, strict=True))


@pytest.mark.parametrize("length", [0, 1, 16, 20, 32, 45, 50])
def test_a_cropped_cache_holds_the_first_tokens_and_goes_on(length):
    keys, values = normal(1, 2, 50, 16), normal(1, 2, 50, 16, seed=1)
    cache = IntegerCodec(8, 8, 16, 4).layer(0)
    cache.append(keys, values)
    cache.crop(length)
    assert cache.length == length
    seen = cache.append(*(normal(1, 2, 3, 16, seed=s) for s in (5, 6)))
    assert seen[0].shape[2] == length + 3 == cache.length
    assert torch.allclose(seen[0][:, :, :length], keys[:, :, :length], atol=0.05)
    assert torch.equal(seen[0][:, :, length:], normal(1, 2, 3, 16, seed=5))


def test_a_window_that_covers_everything_is_the_dense_cache():
    keys, values = normal(1, 2, 60, 16), normal(1, 2, 60, 16, seed=1)
    cache, dense = IntegerCodec(2, 2, 16, 64).layer(0), DenseLayerCache()
    for span in (slice(0, 40), slice(40, 41), slice(41, 60)):
        found = cache.append(keys[:, :, span], values[:, :, span])
        expected = dense.append(keys[:, :, span], values[:, :, span])
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert cache.nbytes == dense.nbytes == 2 * 2 * 60 * 16 * 2


@pytest.mark.parametrize("head_dim", [8, 20, 64, 80, 128])
def test_bytes_for_each_token_are_those_the_codec_says(head_dim):
    for key_bits, value_bits in ((2, 2), (3, 2), (5, 4), (8, 8)):
        codec = IntegerCodec(key_bits, value_bits, 32, 16)
        sizes = []
        for tokens in (48 + 32, 48 + 32 * 5):
            cache = codec.layer(0)
            cache.append(normal(2, 3, tokens, head_dim), normal(2, 3, tokens, head_dim))
            sizes.append(cache.nbytes)
        numbers = 2 * 2 * 3 * (32 * 4) * head_dim
        assert 8 * (sizes[1] - sizes[0]) / numbers == pytest.approx(codec.bits(3, head_dim))


def test_a_budget_gives_keys_the_odd_bit():
    codec = KvInt(4.0).codec(2, 64)  # 3 + 1 and 3 + 1/2: 3.75; one more key bit would be 4.25
    assert (codec.key_bits, codec.value_bits) == (3, 3)
    codec = KvInt(4.25).codec(2, 64)
    assert (codec.key_bits, codec.value_bits) == (4, 3)
    with pytest.raises(OutOfReachError, match=r"holds 2\.75 bits or more.*heads of 64.*not 2\.5"):
        KvInt(2.5).codec(2, 64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_states_of_every_type_come_back_in_it_and_finite(dtype):
    keys = normal(1, 1, 16, 8, dtype=dtype)
    keys[..., 0] = 0.125  # a channel that never changes
    keys[..., 1] = 3e4
    cache = IntegerCodec(2, 2, 16, 0).layer(0)
    cache.append(keys, torch.zeros_like(keys))
    seen = cache.append(keys[:, :, :1], keys[:, :, :1])
    assert all(states.dtype == dtype and torch.isfinite(states).all() for states in seen)
    assert torch.equal(seen[0][:, :, :16, 0], keys[..., 0])


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "mixtral"])
def test_a_model_with_wide_codes_writes_nearly_what_it_writes_with_none(family):
    model, tokens = tiny.build(family), tiny.tokens(2, 60)
    expected = TransformersModel(model).logits(tokens)
    codec = IntegerCodec(8, 8, 16, 4)
    language_model = TransformersModel(model, codec)
    assert language_model.has_cache_method
    session = language_model.session(2, 60)
    parts = [session.feed(part) for part in tokens.split([30, *[1] * 30], dim=1)]
    found = torch.cat(parts, 1)
    assert (found - expected).norm() < 0.03 * expected.norm()
    dense = TransformersModel(model).session(2, 60)
    dense.feed(tokens)
    assert session.cache_bytes() < dense.cache_bytes()


def test_keys_by_token_are_held_as_values_are():
    states = normal(2, 2, 40, 16)
    cache = IntegerCodec(3, 3, 16, 4, keys_by_channel=False).layer(0)
    cache.append(states, states)
    keys, values = cache.append(states[:, :, :1], states[:, :, :1])
    assert torch.equal(keys, values)
    assert cache.keys.scales.shape == cache.values.scales.shape
