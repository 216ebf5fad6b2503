"""What a decode step reads of a cache is what the cache decodes, and attention to it the same."""

import ctypes

import pytest
import torch

from backend.caches import (
    BitmapCodec,
    CorrectedCodec,
    IntegerCodec,
    SalientCodec,
    WindowCodec,
)
from backend.caches.attention import Queries
from backend.caches.base import Coming
from backend.caches.bitmap import _Kept
from backend.caches.packed import Packed
from backend.models.language_model import TransformersModel
from kernels import bitmap_attention, extension
from tests import tiny_transformers as tiny

CHUNKED = {
    **{f"{bits} bits": IntegerCodec(*bits, 8, 4) for bits in ((2, 2), (3, 4), (5, 6), (8, 8))},
    "by token": IntegerCodec(4, 3, 8, 0, keys_by_channel=False),
    "long chunks": IntegerCodec(4, 4, 16, 3),
    "kept channels": BitmapCodec(5, 7, 8, 4),
    "corrected": CorrectedCodec(2, 3, 2, 0.05, 8, 4),
    "thin factors alone": CorrectedCodec(4, 4, 3, 0.0, 8, 4),
    "outliers alone": CorrectedCodec(4, 4, 0, 0.1, 8, 4),
    "salient": SalientCodec(4, 2, 0.4, 16, 4),
    "salient by token": SalientCodec(5, 3, 0.25, 16, 4, keys_by_channel=False),
}
EVERY = CHUNKED | {"window": WindowCodec(2, 12, 4, 1000, 64)}
TREE = [-1, 0, 0, 1, -1, 4, 2]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def read(states, first, shape, stride):
    """What a function of the extension reads, [heads, tokens, channels]."""
    heads, count, channels = shape
    found = torch.full((heads, count, stride), torch.nan)
    numbers = (ctypes.c_int64(number) for number in (first, count, stride))
    function = getattr(extension.library(), states.function)
    function(ctypes.byref(states.structure), *numbers, ctypes.c_void_p(found.data_ptr()))
    return found[:, :, :channels]


@pytest.mark.parametrize("head_dim", [8, 12, 20, 64])
@pytest.mark.parametrize("name", CHUNKED)
def test_a_step_reads_what_the_cache_decodes(name, head_dim):
    cache = CHUNKED[name].layer(0)
    parts = normal(1, 3, 70, head_dim), normal(1, 3, 70, head_dim, seed=1)
    asked = Queries(normal(1, 6, 70, head_dim, seed=2), 0.3, torch.arange(70))
    cache.attend(asked, *parts)
    chunk, held = cache.chunk, cache.chunks * cache.chunk
    assert held >= 4 * chunk
    decoded = cache._decode(torch.float32)
    states = cache._states(Coming(3, head_dim, 1, torch.float32))
    for one, whole in zip(states, decoded, strict=True):
        for first in range(0, held, chunk):
            found = read(one, first, (3, chunk, head_dim), -(-head_dim // 8) * 8)
            assert torch.allclose(found, whole[0, :, first : first + chunk], atol=1e-5)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("over", [3, 4])
def test_states_are_rounded_as_torch_rounds_them(bits, over):
    for dtype, channels in ((torch.float32, 20), (torch.bfloat16, 32)):
        states = normal(2, 3, 2, 8, channels).to(dtype)
        states[0, 1, 0] = 0.25  # a range of nothing
        held = Packed(bits, over)
        expected = held._rounded(states)
        held.extend(states)
        assert torch.equal(held.scales, expected[1])
        assert torch.equal(held.offsets, expected[2])
        assert held.planes.keys() == expected[0].keys()
        for width, plane in expected[0].items():
            assert torch.equal(held.planes[width], plane)


@pytest.mark.parametrize("over", [3, 4])
def test_codes_hide_nothing_that_is_no_number(over):
    states = normal(1, 2, 3, 8, 20)
    states[0, 1, 2, 5, 7] = torch.nan
    held = Packed(4, over)
    held.extend(states)
    lost = states.isnan().any(over, keepdim=True).expand_as(states)
    assert torch.equal(held.chunks(20).isnan(), lost)


@pytest.mark.parametrize("count", [1, 5, 20])
def test_the_largest_channels_are_those_that_torch_finds(count):
    for dtype in (torch.float32, torch.bfloat16):
        order = normal(2, 3, 9, 20).argsort(-1)  # no two sizes of a token alike
        states = ((order + 1) * normal(2, 3, 9, 20, seed=1).sign()).to(dtype)
        held = _Kept(count)
        held.extend(states)
        bitmap, kept = held._largest(states)
        assert torch.equal(held.bitmap, bitmap)
        assert torch.equal(held.values, kept)


def test_of_equal_sizes_the_first_are_kept():
    bitmap, kept = bitmap_attention.largest(torch.tensor([[1.0, -2, 2, -1, 2, 0, 1, 1, 1]]), 5)
    assert bitmap.tolist() == [[0b11111, 0]]
    assert kept.tolist() == [[1, -2, 2, -1, 2]]


def test_of_what_is_no_number_no_more_is_kept_than_there_is_room_for():
    states = torch.tensor([[torch.nan] * 9, [1, torch.nan, 3, torch.inf, 2, 0, 0, 0, 5]])
    bitmap, kept = bitmap_attention.largest(states, 3)
    assert bitmap.tolist() == [[0b111, 0], [0b1010, 1]]
    assert kept[0].isnan().all()
    assert kept[1, 0].isnan()
    assert kept[1, 1:].tolist() == [torch.inf, 5]


def write(session, drafts=True):
    """Logits of a prompt, of single tokens, of a tree, and of what comes after a cut."""
    tokens = tiny.tokens(1, 90)
    found = [session.feed(tokens[:, :30])]
    found += [session.feed(tokens[:, at : at + 1]) for at in range(30, 60)]
    if drafts and session.croppable() >= len(TREE):
        found.append(session.feed(tokens[:, 60:67], TREE))
        session.pick(60, [0, 2])
    found += [session.feed(tokens[:, 70:75])]
    found += [session.feed(tokens[:, at : at + 1]) for at in range(75, 90)]
    return torch.cat(found, 1), session


@pytest.mark.parametrize("heads", [(2, 1, 16), (4, 2, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_steps_in_one_call_write_what_steps_by_torch_write(name, dtype, heads):
    many, few, _ = heads
    network = tiny.build("llama", num_attention_heads=many, num_key_value_heads=few).to(dtype)
    model = TransformersModel(network, EVERY[name])
    fast, slow = (model.session(1, 90) for _ in range(2))
    slow._step = None
    (found, fast), (expected, slow) = write(fast), write(slow)
    assert found.shape == expected.shape
    tolerance = 2e-3 if dtype == torch.float32 else 0.1  # codes of two bits fall either way
    assert (found - expected).norm() < tolerance * expected.norm()
    assert fast.cache_bytes() == slow.cache_bytes()
    for mine, other in zip(fast._caches, slow._caches, strict=True):
        assert mine.length == other.length
        shapes = [[part.shape for part in one.tensors()] for one in (mine, other)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", EVERY)
def test_single_tokens_never_leave_the_step(name, monkeypatch):
    model = TransformersModel(tiny.build("llama"), EVERY[name])
    session = model.session(1, 60)
    session.feed(tiny.tokens(1, 3))
    monkeypatch.setattr(type(session), "_ask", None)
    for at in range(3, 60):
        assert session.feed(tiny.tokens(1, 60)[:, at : at + 1]).isfinite().all()
    assert session._caches[0].length == 60


def test_first_tokens_beyond_the_limit_are_asked_for():
    codec = WindowCodec(2, 12, 4, 40, 64)
    model = TransformersModel(tiny.build("llama"), codec)
    fast, slow = (model.session(1, 90) for _ in range(2))
    slow._step = None
    found, expected = (write(one)[0] for one in (fast, slow))
    assert (found - expected).norm() < 2e-3 * expected.norm()


@pytest.mark.parametrize("first", [0, 2])
def test_a_tree_deeper_than_the_window_sees_as_far_as_a_text(first):
    model = TransformersModel(tiny.build("llama"), WindowCodec(first, 4, 16, 64, 64))
    fast, slow = (model.session(1, 30) for _ in range(2))
    slow._step = None
    tokens = tiny.tokens(1, 22)
    for one in (fast, slow):
        one.feed(tokens[:, :12])
    tree = [-1, -1, 0, 1, 2, 3, 4, 5, 6, 7]
    found, expected = (one.feed(tokens[:, 12:], tree) for one in (fast, slow))
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_room_behind_the_newest_tokens_is_not_counted_and_used_again():
    cache = IntegerCodec(4, 4, 8, 4).layer(0)
    coming = Coming(1, 8, 1, torch.float32)
    places = set()
    for _ in range(11):
        room = cache.reserve(coming)
        for states in room.states:
            states[:, :, cache.recent.length - 1] = normal(1, 1, 8)
        places.add(room.states[0].data_ptr())
        cache.settle()
    assert len(places) == 1
    assert cache.recent.nbytes == 2 * 11 * 8 * 4
    room = cache.reserve(coming)
    room.states[0][:, :, 11] = room.states[1][:, :, 11] = 0
    cache.settle()
    assert (cache.chunks, cache.recent.length) == (1, 4)
    assert cache.reserve(coming).before == 8
