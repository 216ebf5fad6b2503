"""Mustafar: what is kept, its bytes, and attention on it."""

import pytest
import torch

from backend.caches import BitmapCodec
from backend.caches.attention import Queries, attend
from backend.caches.bitmap import _Kept
from backend.methods.cache.mustafar import Mustafar
from kernels import bitmap_attention


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_token_keeps_its_largest_channels_behind_a_bitmap():
    states = torch.tensor([[0.5, -3.0, 1.0, 2.0, 0.0, 0.1, 0.2, -0.3, 9.0]]).view(1, 1, 1, 9)
    held = _Kept(3)
    held.extend(states.bfloat16())
    assert held.values.flatten().tolist() == [-3.0, 2.0, 9.0]
    assert held.bitmap.flatten().tolist() == [0b1010, 0b1]
    assert held.decode(9, torch.float32).flatten().tolist() == [0, -3, 0, 2, 0, 0, 0, 0, 9]


def test_seventy_percent_sparsity_takes_5_8_bits():
    """The paper's setting: 0.3 of 16 bits and one bit of bitmap."""
    assert BitmapCodec(24, 24, 32, 0).bits(1, 80) == pytest.approx(0.3 * 16 + 1)
    codec = Mustafar(5.8).codec(1, 80)
    assert (codec.key_channels, codec.value_channels) == (24, 24)


@pytest.mark.parametrize("channels", [8, 20, 64])
def test_products_on_the_held_form_are_those_of_the_pruned_states(channels):
    keys, queries = normal(2, 3, 11, channels), normal(2, 3, 4, channels, seed=1)
    held = _Kept(5)
    held.extend(keys)
    pruned = held.decode(channels, torch.float32)
    found = bitmap_attention.scores(queries, held.bitmap, held.values)
    assert torch.allclose(found, queries @ pruned.mT, atol=1e-5)
    shares = found.softmax(-1)
    mixed = bitmap_attention.mix(shares, held.bitmap, held.values, channels)
    assert torch.allclose(mixed, shares @ pruned, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 20.0])
def test_attention_is_that_of_pruned_tokens_and_a_dense_window(softcap):
    cache = BitmapCodec(6, 5, 16, 8).layer(0)
    keys, values = normal(2, 2, 60, 16), normal(2, 2, 60, 16, seed=1)
    cache.append(keys, values)
    fresh = normal(2, 2, 3, 16, seed=2), normal(2, 2, 3, 16, seed=3)
    pruned = cache._decode(torch.float32)
    assert pruned[0].shape[2] == 48
    whole = [
        torch.cat([old, part[:, :, 48:], new], 2)
        for old, part, new in zip(pruned, (keys, values), fresh, strict=True)
    ]
    asked = Queries(normal(2, 4, 3, 16, seed=4), 0.25, torch.arange(60, 63), softcap=softcap)
    found = cache.attend(asked, *fresh)
    assert torch.allclose(found, attend(asked, *whole), atol=1e-4)
