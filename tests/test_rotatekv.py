"""RotateKV: the rotation and its way back, the order of channels, the sinks, and the bytes."""

import itertools

import pytest
import torch

from backend.caches import IntegerCodec, RotatedCodec
from backend.caches.attention import Queries
from backend.caches.rotated import rotated
from backend.caches.rotated_codec import block_of, group_of
from backend.methods.cache.rotatekv import Rotatekv
from backend.models import artefact
from backend.models.language_model import TransformersModel
from backend.models.observing import Observed, codec_of, learned
from backend.models.view import View
from backend.recipes import Recipe
from tests import tiny_transformers as tiny
from tests.looking import Looking, fitted, made, normal


def test_four_channels_are_rotated_as_by_hand():
    """H / 2 of (1, 2, 3, 4): sums of all, of alternating, of halves and of both."""
    found = rotated(torch.tensor([1.0, 2.0, 3.0, 4.0]), 4)
    assert found.tolist() == [5.0, -1.0, -2.0, 0.0]
    assert rotated(found, 4).tolist() == [1.0, 2.0, 3.0, 4.0]


def test_one_loud_channel_no_longer_widens_the_range():
    """A spike of 8 among 64 zeros becomes ones of both signs: an eighth of the range a channel."""
    spike = torch.zeros(64)
    spike[17] = 8.0
    assert rotated(spike, 64).abs().unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("channels", "most", "block", "group"),
    [(128, 128, 128, 128), (144, 128, 16, 72), (20, 20, 4, 20), (64, 32, 32, 32), (9, 8, 1, 3)],
)
def test_blocks_and_groups_fill_a_token(channels, most, block, group):
    assert block_of(channels, most) == block
    assert group_of(channels, most) == group


def test_channels_go_by_what_keys_before_their_turn_hold_in_sum():
    model, windows = tiny.build("llama"), tiny.tokens(3, 20)
    tables = Rotatekv().codec(2, 8).learn(Observed(model, windows))
    with torch.no_grad():
        block = model.model.layers[0]
        hidden = block.input_layernorm(model.model.embed_tokens(windows))
        sums = block.self_attn.k_proj(hidden).sum((0, 1))
    assert tables["0.order"].tolist() == sums.argsort().tolist()
    assert sorted(tables) == ["0.order", "1.order"]


class _Turning:
    """Turns pairs of halves by an angle a position."""

    def __call__(self, states, positions):
        half = states.shape[-1] // 2
        angles = positions.float()[:, None] * 0.3 ** torch.arange(half)
        first, second = states[..., :half], states[..., half:]
        turned = first * angles.cos() - second * angles.sin()
        return torch.cat([turned, second * angles.cos() + first * angles.sin()], -1)


def test_what_comes_back_is_the_keys_but_for_the_rounding():
    codec = fitted(RotatedCodec(8, 8, 32, 2, 16, 0, 0), Looking(2, 16))
    cache = codec.layer(0)
    keys, values = normal(2, 2, 48, 16), normal(2, 2, 48, 16, seed=1)
    asked = Queries(normal(2, 4, 48, 16, seed=2), 0.25, torch.arange(48), turn=_Turning())
    cache.attend(asked, keys, values)
    assert cache.chunks == 3
    for found, states in zip(cache._decode(torch.float32), (keys, values), strict=True):
        assert (found - states).abs().max() < 0.02 * states.abs().max()


def test_the_tokens_with_next_to_no_values_stay_exact():
    codec = fitted(RotatedCodec(2, 2, 32, 2, 16, 0, 2), Looking(2, 16))
    cache = codec.layer(0)
    keys, values = normal(1, 2, 32, 16), normal(1, 2, 32, 16, seed=1)
    keys[:, :, [0, 5]] *= 30
    values[:, :, [0, 5]] *= 0.01
    cache.append(keys, values)
    assert sorted(cache.sinks[0][0].tolist()) == [0, 5]
    for found, states in zip(cache._decode(torch.float32), (keys, values), strict=True):
        assert torch.equal(found[:, :, [0, 5]], states[:, :, [0, 5]])
        assert not torch.equal(found[:, :, 1], states[:, :, 1])


def test_bytes_are_those_of_codes_scales_sinks_and_the_order():
    codec = fitted(RotatedCodec(2, 2, 128, 2, 32, 0, 4), Looking(2, 64))
    cache = codec.layer(0)
    cache.append(normal(1, 2, 64, 64).bfloat16(), normal(1, 2, 64, 64, seed=1).bfloat16())
    codes, scales = 2 * 64 * 128 * 2 // 8, 2 * 64 * 4
    sinks, order = 4 * 2 + 2 * 2 * 4 * 64 * 2, 128 * 2
    assert cache.nbytes == codes + scales + sinks + order
    assert codec.bits(2, 64) == 8 * (codes + scales) / (2 * 64 * 128) == 2.25


def test_the_papers_claim_at_two_bits():
    """Table 1: keys with loud channels, rounded a token at a time, lose less when rotated."""
    loud = torch.exp(1.5 * normal(64, seed=8))
    keys = normal(1, 2, 128, 64, seed=1) + 2 * loud * normal(64, seed=3).sign()
    look = Looking(2, 64)
    look.__class__ = type("Alike", (Looking,), {"__call__": lambda s, t: _keys_of(s, t, keys)})
    plain = IntegerCodec(2, 2, 32, 0, keys_by_channel=False).layer(0)
    turned = fitted(RotatedCodec(2, 2, 64, 2, 32, 0, 0), look).layer(0)
    errors = []
    for cache in (plain, turned):
        cache.append(keys, keys)
        errors.append(float((cache._decode(torch.float32)[0] - keys).norm()))
    assert errors[1] < 0.6 * errors[0]


def _keys_of(look, tokens, keys):
    seen = Looking.__call__(look, tokens)[0]
    return {0: type(seen)(seen.queries, keys, seen.values)}


def test_wider_codes_round_less():
    errors = []
    for bits in (2, 3, 4, 8):
        cache = fitted(RotatedCodec(bits, bits, 64, 4, 32, 0, 0), Looking(4, 32)).layer(0)
        keys = normal(1, 4, 64, 32)
        cache.append(keys, keys)
        errors.append(float((cache._decode(torch.float32)[0] - keys).norm()))
    assert all(after < 0.6 * before for before, after in itertools.pairwise(errors))


def test_a_cut_into_the_first_chunk_gives_back_its_sinks():
    cache = made(Rotatekv(window=0, chunk=16), 2, 16).layer(0)
    keys = normal(1, 2, 40, 16)
    cache.append(keys, keys)
    cache.crop(7)
    assert (cache.chunks, cache.length, cache.sinks) == (0, 7, None)
    cache.append(keys[:, :, 7:], keys[:, :, 7:])
    assert cache.sinks is not None


def test_what_was_found_of_a_model_lies_beside_it(tmp_path):
    source = tiny.loaded(tiny.build("llama"), tmp_path / "dense")
    recipe, windows = Recipe.parse("rotatekv(window=0)"), tiny.tokens(4, 20)
    tables = learned(recipe, source.model, windows)
    view = View(source.model)
    tiny.tokenizer_files(tmp_path / "dense")
    artefact.save(view, source, recipe, [], tmp_path / "made", tables=tables)
    again = artefact.load(tmp_path / "made")
    assert sorted(again.tables) == sorted(tables)
    model = again.loaded.model
    whole, tokens = (
        TransformersModel(model, codec_of(recipe, model, again.tables)),
        tiny.tokens(1, 50),
    )
    same = TransformersModel(source.model, codec_of(recipe, source.model, tables))
    found = [one.session(1, 50).feed(tokens) for one in (whole, same)]
    assert torch.equal(*found)


def test_a_model_that_was_never_looked_at_is_told():
    cache = Rotatekv(window=0).codec(2, 16).layer(3)
    with pytest.raises(Exception, match=r"layer 3: its order .* Compress the model again\."):
        cache.append(normal(1, 2, 64, 16), normal(1, 2, 64, 16))
