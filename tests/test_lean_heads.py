"""Attention in whole steps by heads of every size: as they lie, two queries at once, or padded."""

import pytest
import torch

from backend.caches.window import WindowCodec
from backend.methods import find
from backend.models.language_model import TransformersModel
from backend.models.observing import Observed
from tests import looking
from tests import tiny_transformers as tiny
from tests.lean_models import near

QUERIES = [(2, 2), (4, 2), (3, 1)]  # one, two and three of a head
# 32 divides no 48, and 288 is wider than is known.
SHAPES = [(64, heads) for heads in QUERIES] + [(size, (4, 2)) for size in (32, 48, 96, 256, 288)]
TREE = [-1, 0, 0, 1, -1, 3, 5]


def build(size, heads, dtype=torch.float32):
    many, few = heads
    model = tiny.build(
        "llama", num_attention_heads=many, num_key_value_heads=few, head_dim=size,
        hidden_size=many * 8,
    )  # fmt: skip
    with torch.no_grad():
        for layer in model.model.layers:  # so that scores differ by more than a share's rounding
            layer.self_attn.q_proj.weight.mul_(3)
            layer.self_attn.k_proj.weight.mul_(3)
    return model.to(dtype)


def write(model, by_torch):
    """Logits of a prompt, of tokens that fill and begin pieces of 32, of a tree and after."""
    session = model.session(1, 96)
    if by_torch:
        session._step = None
    else:
        assert session._step is not None
    tokens = tiny.tokens(1, 90)
    found = [session.feed(tokens[:, :29])]
    found += [session.feed(tokens[:, at : at + 1]) for at in range(29, 67)]
    found.append(session.feed(tokens[:, 67:74], TREE))
    session.pick(67, [0, 1, 3])
    found += [session.feed(tokens[:, at : at + 1]) for at in range(74, 80)]
    return torch.cat(found, dim=1).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("size", "heads"), SHAPES, ids=str)
def test_heads_of_every_size_find_what_torch_finds(size, heads, dtype):
    network = build(size, heads, dtype)
    found = write(TransformersModel(network), by_torch=False)
    tolerance = 1e-4 if dtype == torch.float32 else 0.03
    near(found, write(TransformersModel(network.float()), by_torch=True), tolerance)


@pytest.mark.parametrize("heads", QUERIES, ids=str)
@pytest.mark.parametrize("codec", ["kv-int", "window"])
def test_tokens_before_a_room_and_those_out_of_reach(codec, heads):
    network = build(64, heads)
    if codec == "window":  # two first ones and eight before a token, in pieces that hide some
        held = WindowCodec(2, 8, 4, 64, 64)
    else:
        observed = Observed(network, tiny.tokens(2, 20))
        held = looking.fitted(find(codec)(window=8).codec(heads[1], 64), observed)
    model = TransformersModel(network, held)
    near(write(model, by_torch=False), write(model, by_torch=True), 2e-3)


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_key_that_is_no_number_leaves_none(size, dtype):
    model = TransformersModel(build(size, (4, 2), dtype))
    session = model.session(1, 70)
    session.feed(tiny.tokens(1, 69))
    with torch.inference_mode():
        next(iter(session._caches[0].tensors()))[..., 40, :] = float("nan")
    assert session.feed(tiny.tokens(1, 1)).isnan().all()


@pytest.mark.parametrize("size", [32, 48])
def test_what_lies_behind_the_last_token_reaches_nobody(size):
    model = TransformersModel(build(size, (4, 2)))
    tokens, found = tiny.tokens(1, 40), []
    for left in (0.0, float("nan")):
        session = model.session(1, 64)
        session.feed(tokens[:, :37])
        with torch.inference_mode():
            for states in session._caches[0].tensors():
                states[..., 37:, :] = left
        found.append(session.feed(tokens[:, 37:38]))
    assert torch.equal(*found)
