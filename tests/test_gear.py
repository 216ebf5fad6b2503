"""GEAR: outliers, codes and the error of what was rounded, by hand and against the best."""

import pytest
import torch

from backend.caches import CorrectedCodec, IntegerCodec
from backend.caches.corrected import Corrected, thin_factors
from backend.methods.cache.gear import Gear


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_outliers_are_held_exactly_and_do_not_widen_the_range():
    """Two-bit codes of 0, 1, 2, 3 are exact once the 100 is held apart."""
    values = torch.tensor([[0.0, 1.0, 2.0, 3.0, 100.0, 1.0, 2.0, 0.0]] * 4)
    values[1:, 4] = 3.0
    held = Corrected(bits=2, over=4, rank=0, apart=1)
    held.extend(values.view(1, 1, 1, 4, 8))
    assert int(held.places[0, 0, 0, 0]) == 4
    assert float(held.values[0, 0, 0, 0]) == 100.0
    found = held.decode(8, torch.float32)[0, 0]
    # beside the outlier stands its token's mean, 13.625, which widens that token's range a little
    assert torch.equal(found[1:], values[1:])
    assert float(found[0, 4]) == 100.0
    assert (found[0] - values[0]).abs().max() < 13.625 / 3


def test_an_error_of_low_rank_is_given_back():
    """What two thin factors can hold of the rounding error is no longer an error."""
    left, right = normal(32, 2), normal(2, 16, seed=1)
    matrices = (left @ right).expand(1, 1, 1, 32, 16)
    found = thin_factors(matrices, 2)
    assert torch.allclose(found[0] @ found[1], matrices, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_factors_are_nearly_the_best_of_their_rank(rank):
    error = normal(5, 64, 32)
    left, right = thin_factors(error, rank)
    best = torch.linalg.svdvals(error)[:, rank:].square().sum(1)
    own = (error - left @ right).square().sum((1, 2))
    assert (own <= 1.05 * best).all()


def test_bytes_are_those_of_codes_scales_factors_and_outliers():
    """128 tokens of 64: 2-bit codes, 2 + 2 bytes a scale, 2 (128 + 64) factors, 164 outliers."""
    codec = CorrectedCodec(2, 2, rank=2, outliers=0.02, chunk=128, window=0)
    cache = codec.layer(0)
    cache.append(normal(1, 1, 128, 64).bfloat16(), normal(1, 1, 128, 64, seed=1).bfloat16())
    codes, factors, apart = 2 * 128 * 64 * 2 // 8, 2 * 2 * (128 + 64) * 2, 2 * 164 * 4
    assert cache.nbytes == codes + 4 * 64 + 4 * 128 + factors + apart
    assert 8 * cache.nbytes / (2 * 128 * 64) == codec.bits(1, 64)


def test_the_papers_claim_at_equal_code_width():
    """Figure 1: beside the same codes, factors and outliers take away most of the error."""
    loud = torch.exp(normal(64, seed=8))
    common = normal(1, 1, 128, 3, seed=3) @ normal(3, 64, seed=4)
    keys = (normal(1, 1, 128, 64, seed=1) * 0.3 + common) * loud
    keys.view(-1)[::997] *= 12
    plain, gear = (
        IntegerCodec(2, 2, 128, 0).layer(0),
        CorrectedCodec(2, 2, 4, 0.02, 128, 0).layer(0),
    )
    errors = []
    for cache in (plain, gear):
        cache.append(keys, keys)
        seen = cache.append(keys[:, :, :1], keys[:, :, :1])
        errors.append([float((part[:, :, :128] - keys).norm() / keys.norm()) for part in seen])
    assert errors[1][0] < 0.75 * errors[0][0]
    assert errors[1][1] < 0.75 * errors[0][1]


def test_small_heads_that_leave_no_room_get_fewer_columns():
    codec = Gear(4.0).codec(2, 32)
    assert (codec.rank, codec.key_bits, codec.value_bits) == (1, 2, 2)
    assert codec.bits(2, 32) <= 4.0
    assert Gear(5.5).codec(2, 128).rank == 2


def test_places_beyond_fifteen_bits_come_back():
    states = normal(1, 1, 1, 128, 512)
    states[..., -1, -1] = 80.0
    held = Corrected(4, 4, 0, 1)
    held.extend(states)
    assert float(held.decode(512, torch.float32)[0, 0, -1, -1]) == 80.0
