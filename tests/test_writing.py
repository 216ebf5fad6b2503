"""Several first choices by one call are those of single steps."""

import pytest
import torch

from backend.decoding.greedy import choose, write
from backend.methods import find
from backend.models.language_model import TransformersModel
from backend.models.observing import Observed
from tests import looking
from tests import tiny_transformers as tiny
from tests.lean_models import FAMILIES
from tests.test_lean import calls_counted


def by_single_steps(model, prompt, count):
    session = model.session(1, prompt.shape[1] + count)
    chosen = [int(choose(session.read(prompt)))]
    while len(chosen) < count:
        chosen.append(int(choose(session.feed(torch.tensor([chosen[-1:]]))[0, -1])))
    return chosen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_is_that_of_single_steps(family, dtype):
    model = TransformersModel(tiny.build(family, **FAMILIES[family]).to(dtype))
    prompt = tiny.tokens(1, 5)
    session = model.session(1, 45)
    with calls_counted(session) as calls:
        (found,) = write(session, prompt, 40)
    assert len(calls) == 1, "all but the prompt goes without single steps"
    assert found == by_single_steps(model, prompt, 40)
    assert session.length == 5 + 39


def test_what_follows_a_text_sees_all_of_it():
    model = TransformersModel(tiny.build("llama"))
    prompt, more = tiny.tokens(1, 4), tiny.tokens(1, 3, seed=1)
    session = model.session(1, 32)
    (found,) = write(session, prompt, 20)
    whole = torch.cat([prompt, torch.tensor([found[:-1]]), more], 1)
    torch.testing.assert_close(session.feed(more), model.logits(whole)[:, -3:], rtol=0, atol=1e-4)
    session.crop(4)
    fed = torch.tensor([found[:1]])
    assert write(session, fed, 19)[0] == found[1:]


def test_a_text_longer_than_its_room_goes_on():
    model = TransformersModel(tiny.build("llama"))
    prompt = tiny.tokens(1, 4)
    assert write(model.session(1, 6), prompt, 30)[0] == by_single_steps(model, prompt, 30)


def test_an_end_is_the_last_token():
    model = TransformersModel(tiny.build("llama"))
    prompt = tiny.tokens(1, 4)
    (free,) = write(model.session(1, 34), prompt, 30)
    for end in {free[0], free[7], free[-1]}:
        session = model.session(1, 34)
        expected = free[: free.index(end) + 1]
        assert write(session, prompt, 30, end)[0] == expected
        assert session.length == 4 + len(expected) - 1


@pytest.mark.parametrize("codec", ["kv-int", "window"])
def test_caches_of_their_own_write_the_same(codec):
    model = tiny.build("llama")
    held = looking.fitted(find(codec)().codec(1, 16), Observed(model, tiny.tokens(2, 20)))
    model = TransformersModel(model, held)
    prompt = tiny.tokens(1, 6)
    assert write(model.session(1, 40), prompt, 20)[0] == by_single_steps(model, prompt, 20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equal_logits_the_lowest_id_is_chosen_and_no_number_wins(dtype):
    built = tiny.build("llama", tie_word_embeddings=False).to(dtype)
    model = TransformersModel(built)
    prompt = tiny.tokens(1, 4)
    rows = built.lm_head.weight.data
    first = write(model.session(1, 8), prompt, 2)[0][1]
    others = {(first + 3) % len(rows), (first + 11) % len(rows), first}
    for other in others:
        rows[other] = rows[first]  # what is read later is what the first chose
    model = TransformersModel(built)
    assert write(model.session(1, 8), prompt, 2)[0][1] == min(others)
    rows[max(others)] = torch.nan
    model = TransformersModel(built)
    assert write(model.session(1, 8), prompt, 3)[0] == [max(others)] * 3


def test_an_id_beyond_the_vocabulary_is_refused_and_nothing_is_written():
    model = TransformersModel(tiny.build("llama"))
    session = model.session(1, 16)
    session.read(tiny.tokens(1, 4))
    with pytest.raises(IndexError, match="Tokens of this model are 0 to"):
        session.ahead(1_000_000, 3, None)
    assert session.length == 4
