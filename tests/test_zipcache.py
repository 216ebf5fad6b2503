"""ZipCache: salience and the two kinds of scale, by hand."""

import torch

from backend.caches import SalientCodec
from backend.caches.attention import Queries
from backend.caches.salient import SalientLayerCache, _Parted


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_normalised_attention_gives_early_tokens_no_head_start():
    """Uniform attention of three probes at 1, 2 and 3: summed it falls with the place.

    Sums: 1/2 + 1/3 + 1/4 for tokens 0 and 1, 1/3 + 1/4 for 2, 1/4 for 3; divided by the 3, 3, 2
    and 1 probes that see them: 13/36, 13/36, 7/24, 1/4.
    """
    cache = SalientCodec(4, 2, 0.5, 32, 0).layer(0)
    cache.rows, cache.probes = [1, 2, 3], torch.zeros(1, 1, 3, 8)
    queries = Queries(torch.zeros(1, 1, 1, 8), 1.0, torch.tensor([3]))
    found = cache._weigh(queries, normal(1, 1, 4, 8))
    expected = torch.tensor([13 / 36, 13 / 36, 7 / 24, 1 / 4])
    assert torch.allclose(found[0, 0], expected, atol=1e-6)


def test_tokens_that_probes_look_at_get_the_wider_codes():
    codec = SalientCodec(8, 2, 0.25, 32, 0)
    keys, values = normal(1, 1, 32, 16), normal(1, 1, 32, 16, seed=1)
    direction = torch.nn.functional.normalize(normal(16, seed=2), dim=0)
    looked = [1, 5, 6, 9, 12, 20, 22, 27]
    keys[:, :, looked] += 12 * direction
    queries = (20 * direction).expand(1, 2, 32, 16)
    cache = codec.layer(0)
    cache.attend(Queries(queries, 0.25, torch.arange(32)), keys, values)
    found, _ = cache._decode(torch.float32)
    error = (found - keys).square().mean(-1)[0, 0]
    others = [place for place in range(32) if place not in looked]
    assert error[looked].max() < 0.02 * error[others].mean()


def test_each_head_chooses_its_own_and_marks_take_a_bit_a_token():
    codec = SalientCodec(4, 2, 0.5, 64, 0)
    cache = codec.layer(0)
    states = normal(2, 3, 64, 16), normal(2, 3, 64, 16, seed=1)
    cache.attend(Queries(normal(2, 6, 64, 16, seed=2), 0.25, torch.arange(64)), *states)
    assert cache.marks.shape == (2, 3, 1, 8)
    counts = torch.tensor(
        [[bin(byte).count("1") for byte in row] for row in cache.marks.view(6, 8)]
    )
    assert counts.sum(1).tolist() == [32] * 6
    assert len({tuple(row.tolist()) for row in cache.marks.view(6, 8)}) > 1


def test_channels_are_divided_by_the_root_of_their_largest_size():
    """Two-bit codes: channel 0 is 100 times channel 1; apart, each keeps its own steps."""
    states = torch.tensor([[100.0, 1.0], [0.0, 0.0], [100.0, 0.0], [0.0, 1.0]]).view(1, 1, 1, 4, 2)
    held = _Parted(SalientCodec(2, 2, 0.5, 4, 0), by_channel=False)
    order = torch.arange(4).view(1, 1, 1, 4)
    held.extend(states, order, 2)
    assert held.divisors.flatten().tolist() == [10.0, 1.0]
    assert torch.allclose(held.decode(order, 2, torch.float32)[0, 0], states[0, 0, 0], atol=0.5)


def test_probes_are_a_tenth_and_leave_with_their_chunk():
    codec = SalientCodec(4, 2, 0.5, 64, 16)
    assert len(codec.probes) == 6
    assert {61, 62, 63} <= codec.probes
    cache: SalientLayerCache = codec.layer(0)
    for start in range(0, 320, 32):
        states = normal(1, 1, 32, 16, seed=start), normal(1, 1, 32, 16, seed=start + 1)
        asked = Queries(normal(1, 2, 32, 16), 0.25, torch.arange(start, start + 32))
        cache.attend(asked, *states)
        assert len(cache.rows) <= 2 * 6
        assert all(row >= cache.chunks * 64 for row in cache.rows)
    assert cache.probes.shape == (1, 2, len(cache.rows), 16)


def test_bits_by_hand():
    """Half of 64 tokens at 4 and half at 2 bits, heads of 64: codes 3; keys two scales and offsets
    a chunk's channel; values one a token and a divisor a channel; one mark a token and head."""
    codec = SalientCodec(4, 2, 0.5, 64, 0)
    keys, values, marks = 2 * 32 / 64, 32 / 64 + 16 / 64, 1 / 128
    assert codec.bits(2, 64) == 3 + (keys + values) / 2 + marks
