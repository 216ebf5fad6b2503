"""CSKV: the directions that are kept, against the singular values, and both branches."""

import pytest
import torch

from backend.caches import ReducedCodec
from backend.caches.attention import Queries, attend
from backend.methods.cache.cskv import Cskv
from backend.models.observing import Observed
from tests import tiny_transformers as tiny
from tests.looking import Looking, fitted, made, normal


def keys_of(model, windows):
    """What the first layer's matrix gives for calibration tokens, before positions."""
    with torch.no_grad():
        block = model.model.layers[0]
        hidden = block.input_layernorm(model.model.embed_tokens(windows))
        return block.self_attn.k_proj(hidden).flatten(0, 1).double()


@pytest.mark.parametrize("rank", [1, 4, 11])
def test_no_two_factors_rebuild_the_calibration_keys_better(rank):
    """Eckart and Young: what is left are the singular values behind the rank."""
    model, windows = tiny.build("llama"), tiny.tokens(3, 24)
    tables = ReducedCodec(rank, 3, 16, 16, 0).learn(Observed(model, windows))
    keys, directions = keys_of(model, windows), tables["0.keys"].double()
    assert directions.shape == (16, rank)
    left = float((keys - keys @ directions @ directions.T).square().sum())
    best = float(torch.linalg.svdvals(keys)[rank:].square().sum())
    assert best <= left <= 1.02 * best + 1e-4 * float(keys.square().sum())


def test_a_factored_matrix_gives_what_is_held():
    """The first of two thin factors of the key matrix makes the numbers along the directions."""
    model, windows = tiny.build("llama"), tiny.tokens(1, 32)
    codec = fitted(ReducedCodec(5, 5, 16, 16, 0), Observed(model, windows))
    seen = Observed(model, windows)(windows)[0]
    cache = codec.layer(0)
    cache.attend(seen.queries, seen.keys, seen.values)
    weight, directions = model.model.layers[0].self_attn.k_proj.weight, codec.table(0, "keys")
    thin = directions.float().T @ weight  # [rank, hidden channels]
    with torch.no_grad():
        block = model.model.layers[0]
        hidden = block.input_layernorm(model.model.embed_tokens(windows))
    held = cache.keys.plain[0, 0].flatten(0, 1).float()
    assert torch.allclose(held, (hidden[0] @ thin.T), atol=0.02, rtol=0.02)


def test_attention_joins_the_reduced_branch_and_the_exact_window():
    codec = fitted(ReducedCodec(6, 5, 16, 16, 8), Looking(2, 8))
    cache = codec.layer(0)
    keys, values = normal(2, 2, 60, 8), normal(2, 2, 60, 8, seed=1)
    cache.append(keys, values)
    old = []
    for states, name in ((keys, "keys"), (values, "values")):
        directions = codec.table(0, name).float()
        rows = states[:, :, :48].transpose(1, 2).flatten(2) @ directions
        rows = rows.bfloat16().float() @ directions.T
        old.append(rows.unflatten(2, (2, 8)).transpose(1, 2))
    fresh = normal(2, 2, 3, 8, seed=2), normal(2, 2, 3, 8, seed=3)
    whole = [
        torch.cat([far, near[:, :, 48:], new], 2)
        for far, near, new in zip(old, (keys, values), fresh, strict=True)
    ]
    asked = Queries(normal(2, 4, 3, 8, seed=4), 0.35, torch.arange(60, 63))
    assert torch.allclose(cache.attend(asked, *fresh), attend(asked, *whole), atol=1e-4)


def test_bytes_are_those_of_numbers_along_directions_and_the_directions():
    """The paper's 80 %: a fifth of 256 channels, 3.2 bits a number; 4-bit codes leave 5 to 6 %."""
    codec = fitted(ReducedCodec(51, 51, 16, 32, 0), Looking(4, 64))
    cache = codec.layer(0)
    cache.append(normal(1, 4, 64, 64).bfloat16(), normal(1, 4, 64, 64, seed=1).bfloat16())
    assert cache.nbytes == 2 * 64 * 51 * 2 + 2 * 256 * 51 * 2
    assert codec.bits(4, 64) == pytest.approx(16 * 51 / 256)
    coded = ReducedCodec(51, 51, 4, 128, 0)
    # 26 bytes of codes a token, four more for each direction of 128 tokens and for each value
    assert coded.bits(4, 64) == pytest.approx(8 * (2 * 26 + 4 * 51 / 128 + 4) / 512)
    assert coded.bits(4, 64) < 0.06 * 16


def test_codes_along_directions_round_little():
    errors = []
    for held in (16, 8, 4):
        cache = fitted(ReducedCodec(32, 32, held, 32, 0), Looking(2, 16)).layer(0)
        keys = normal(1, 2, 64, 16)
        cache.append(keys, keys)
        found = cache._decode(torch.float32)[0]
        errors.append(float((found - keys).norm() / keys.norm()))
    assert errors[0] < 0.01
    assert errors[1] < 0.02
    assert 0.02 < errors[2] < 0.2


def test_the_budget_pays_for_directions():
    assert Cskv(8.0).codec(2, 64).key_rank == Cskv(8.0).codec(2, 64).value_rank == 64
    assert made(Cskv(16.0), 2, 8).layer(0) is not None
    assert Cskv(1.0, held=4).codec(4, 64).bits(4, 64) <= 1.0
