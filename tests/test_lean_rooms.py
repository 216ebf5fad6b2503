"""Steps go on in the rooms of the step before, as long as those are the ones."""

import pytest
import torch

from backend.models.language_model import TransformersModel
from kernels.decode_step import TOKENS
from tests import tiny_transformers as tiny


def equal(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_room_that_a_long_text_enlarges_is_left_for_the_new_one():
    model = TransformersModel(tiny.build("llama").eval())
    tokens = tiny.tokens(1, TOKENS + 20)
    session = model.session(1, 12)
    for at in range(6):
        session.feed(tokens[:, at : at + 1])
    session.feed(tokens[:, 6:-8])  # module by module, and into a larger room
    session.crop(8)
    fresh = model.session(1, 40)
    fresh.feed(tokens[:, :8])
    for at in range(8, 11):
        equal(session.feed(tokens[:, at : at + 1]), fresh.feed(tokens[:, at : at + 1]))


def test_single_tokens_enlarge_a_room_that_is_full():
    model = TransformersModel(tiny.build("llama").eval())
    tokens = tiny.tokens(1, 24)
    whole = model.session(1, 24).feed(tokens)
    session = model.session(1, 4)
    alone = [session.feed(tokens[:, at : at + 1]) for at in range(24)]
    equal(torch.cat(alone, dim=1), whole)


def test_two_sessions_by_turns_write_into_their_own_rooms():
    model = TransformersModel(tiny.build("llama").eval())
    texts = tiny.tokens(2, 10)
    alone = [model.session(1, 10).feed(text[None]) for text in texts]
    sessions = [model.session(1, 10), model.session(1, 10)]
    steps = [
        [
            session.feed(text[None, at : at + 1])
            for session, text in zip(sessions, texts, strict=True)
        ]
        for at in range(10)
    ]
    for one, wanted in enumerate(alone):
        equal(torch.cat([step[one] for step in steps], dim=1), wanted)


def test_logits_of_a_model_in_bfloat16_are_those_in_float32_rounded():
    model = TransformersModel(tiny.build("llama").eval().to(torch.bfloat16))
    step = model._lean.step(model._lean.blocks)
    found = model.session(1, 4).feed(tiny.tokens(1, 2))
    assert found.dtype == torch.bfloat16
    if step is None:
        pytest.skip("without the extension there are no steps")
    step._dtype, step._step.halved = torch.float32, 0
    wanted = model.session(1, 4).feed(tiny.tokens(1, 2))
    assert wanted.dtype == torch.float32
    assert torch.equal(found, wanted.to(torch.bfloat16))


@pytest.mark.parametrize("count", [1, 3, TOKENS, TOKENS + 5])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma3"])
def test_reading_gives_the_logits_of_the_last_position_alone(family, count):
    model = TransformersModel(tiny.build(family).eval())
    tokens = tiny.tokens(2, count)
    for batch in (1, 2):
        fed = model.session(batch, count + 1)
        read = model.session(batch, count + 1)
        equal(read.read(tokens[:batch]), fed.feed(tokens[:batch])[:, -1])
        assert read.length == count
        equal(read.feed(tokens[:batch, :1]), fed.feed(tokens[:batch, :1]))


def test_reading_multiplies_the_head_by_one_position():
    plain, seen = tiny.build("gpt2").eval(), []
    plain.lm_head.register_forward_hook(lambda _, given, found: seen.append(found.shape))
    TransformersModel(plain).session(1, 9).read(tiny.tokens(1, 9))
    assert [shape[1] for shape in seen] == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_broken_model_left_reaches_no_heads_that_fill_no_whole_eights(dtype):
    """The attention of a step keeps the room of the model before."""
    tokens = tiny.tokens(1, 12)
    ten = tiny.build("llama", head_dim=10).to(dtype)
    broken = tiny.build("llama", head_dim=26).to(dtype)
    for block in broken.model.layers:
        block.self_attn.k_proj.weight.fill_(torch.nan)
    before = TransformersModel(ten).session(1, 12).feed(tokens)
    assert TransformersModel(broken).session(1, 12).feed(tokens).isnan().any()
    assert torch.equal(TransformersModel(ten).session(1, 12).feed(tokens), before)
