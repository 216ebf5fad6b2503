"""Triton's kernels on keys and values, interpreted; run as `triton_products` is."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch

from kernels import kv, slots
from kernels.triton import kv as kernels
from tests.triton_checks import checked, close, poison  # noqa: F401 - fixtures for every test


def by_hand(states, bits, group):
    """Codes, scales and offsets by the definition, head by head and group by group."""
    heads, tokens, _ = states.shape
    codes = torch.zeros(states.shape)
    back = torch.zeros(states.shape)
    size = group or 1
    for head in range(heads):
        for first in range(0, tokens, size):
            piece = states[head, first : first + size].float()
            over = 0 if group else 1
            low = piece.amin(over, keepdim=True)
            step = (piece.amax(over, keepdim=True) - low) / (2**bits - 1)
            step, low = step.bfloat16().float(), low.bfloat16().float()
            code = ((piece - low) / step).round().clamp(0, 2**bits - 1)
            codes[head, first : first + size] = code
            back[head, first : first + size] = code * step + low
    return codes.to(torch.int64), back


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [0, 32])
def test_states_are_quantised_and_come_back(bits, group):
    states = torch.randn(2, 64 if group else 40, 64).bfloat16()
    codes, back = by_hand(states, bits, group)
    for module in (kernels, kv):
        words, scales, offsets = module.quantise(states, bits, group)
        found = slots.unpack(words.view(-1, words.shape[2]), bits, 64, 64)
        assert torch.equal(found.to(torch.int64), codes.view(-1, 64))
        like = torch.zeros(1, dtype=torch.float32)
        assert torch.allclose(
            module.dequantise(words, scales, offsets, bits, group, like), back, atol=1e-6
        )


@pytest.mark.parametrize("group", [0, 16])
def test_appending_writes_its_own_tokens_alone(group):
    states = torch.randn(2, 64, 64).to(torch.float16)
    for module in (kernels, kv):
        whole = module.quantise(states, 4, group)
        room = [torch.full_like(part, 7) for part in whole]
        module.append(states[:, 16:48].contiguous(), *room, 16, 4, group)
        for held, wanted in zip(room, whole, strict=True):
            unit = 16 if group and held.shape[1] == 4 else 1
            assert torch.equal(held[:, 16 // unit : 48 // unit], wanted[:, 16 // unit : 48 // unit])
            assert (held[:, : 16 // unit] == 7).all()
            assert (held[:, 48 // unit :] == 7).all()


@pytest.mark.parametrize(("position", "tokens"), [(48, 32), (-16, 16), (8, 16), (0, 24)])
def test_tokens_without_a_place_are_refused(position, tokens):
    room = kv.quantise(torch.randn(1, 64, 64), 4, 16)
    for module in (kernels, kv):
        with pytest.raises(ValueError, match=r"[Tt]okens"):
            module.append(torch.randn(1, tokens, 64), *room, position, 4, 16)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    ("key_bits", "value_bits", "group", "dtype"),
    [(2, 4, 32, torch.bfloat16), (4, 2, 0, torch.bfloat16), (8, 8, 16, torch.float16)],
)
def test_attention_over_codes(key_bits, value_bits, group, dtype, keep):
    texts, heads, each, tokens, room = 2, 2, 3, 75, 96
    states = torch.randn(2, texts * heads, room, 64).to(dtype)
    keys = kv.quantise(states[0], key_bits, group)
    values = kv.quantise(states[1], value_bits, 0)
    queries = torch.randn(texts, heads * each, 64).to(dtype)
    seen = torch.ones(texts * heads, room, dtype=torch.uint8)
    if keep:
        seen[:, ::3] = 0
        seen[1] = 0
        seen[2, :40] = 0
    mask = seen if keep else None
    wide = torch.zeros(1, dtype=torch.float64)
    key = kv.dequantise(*keys, key_bits, group, wide)[:, :tokens].repeat_interleave(each, 0)
    value = kv.dequantise(*values, value_bits, 0, wide)[:, :tokens].repeat_interleave(each, 0)
    scores = torch.einsum("hd,htd->ht", queries.double().flatten(0, 1), key) * 0.125
    shown = seen[:, :tokens].bool().repeat_interleave(each, 0)
    scores[~shown] = -torch.inf
    shares = torch.softmax(scores, 1).nan_to_num(0.0)
    wanted = torch.einsum("ht,htd->hd", shares, value).view(queries.shape)
    sums = scores.logsumexp(1).view(texts, -1)
    arguments = queries, *keys, *values, tokens, key_bits, value_bits, group, 0.125, mask
    for found, logs in (kernels.attention(*arguments, splits=4), kv.attention(*arguments)):
        close(found, wanted, dtype)
        assert torch.allclose(logs.double(), sums, atol=0.05)
        if keep:
            assert (found.view(4, each, 64)[1] == 0).all()
            assert torch.isneginf(logs.view(4, each)[1]).all()
