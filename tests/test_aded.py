"""ADED: its table by hand, its search against the likeliest paths, and the text it leaves."""

import itertools

import pytest
import torch

from backend.decoding.greedy import generate
from backend.decoding.speculate import speculate
from backend.decoding.trigrams import TrigramDrafter
from backend.methods.decode.aded import Aded
from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny


def drafter_of(**changes):
    settings = {"width": 3, "nodes": 8, "keep": 0.5, "contexts": 1000} | changes
    return TrigramDrafter(6, **settings)


def says(*chances):
    return torch.tensor([list(one) for one in chances]).log()


def test_chances_are_drawn_half_way_to_the_models():
    drafter = drafter_of()
    drafter.learn([4, 2], says([1 / 6] * 6, [0.5, 0.25, 0.125, 0.0625, 0.0625, 0]))
    assert drafter.after(4, 2) == pytest.approx({0: 0.5, 1: 0.25, 2: 0.125})
    drafter.learn([4, 2], says([1 / 6] * 6, [0.15, 0.0, 0.05, 0.6, 0.2, 0]))
    # half of 0.5 and 0.15, of 0 and 0.6, of 0.25 and 0, of 0 and 0.2: the best three stay
    assert drafter.after(4, 2) == pytest.approx({0: 0.325, 3: 0.3, 1: 0.125})
    assert drafter.after(2, 4) == {}


def test_a_long_prompt_is_heard_in_parts_as_one():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(6, (150,), generator=generator).tolist()
    logits = torch.randn(150, 6, generator=generator)
    whole, single = drafter_of(keep=0.0), drafter_of(keep=0.0)
    whole.learn(tokens, logits)
    for place in range(1, 150):
        single.learn(tokens[place - 1 : place + 1], logits[place - 1 : place + 1])
    for before, token in itertools.product(range(6), range(6)):
        assert whole.after(before, token) == pytest.approx(single.after(before, token))


def test_tokens_of_a_tree_follow_their_own_branch():
    drafter = drafter_of()
    drafter.propose([1, 3], 4)
    even = [1 / 6] * 6
    drafter.learn([3, 0, 5, 2], says(even, even, even, even), [-1, 0, 0, 1])
    assert drafter.after(1, 3)
    assert drafter.after(3, 0)
    assert drafter.after(3, 5)
    assert drafter.after(0, 2)
    assert not drafter.after(5, 2)


def test_a_sure_table_gives_a_chain_and_an_unsure_one_a_bush():
    chain, bush = drafter_of(nodes=4), drafter_of(nodes=4)
    sure = [[0.98 if token == (row + 1) % 6 else 0.004 for token in range(6)] for row in range(6)]
    for before, token in itertools.product(range(6), range(6)):
        for drafter, chances in ((chain, sure[token]), (bush, [0.34, 0.33, 0.33, 0, 0, 0])):
            drafter.learn([before, token], says([1 / 6] * 6, chances))
    assert chain.propose([0, 1], 9).tokens[:3] == (2, 3, 4)
    assert chain.propose([0, 1], 9).parents[:3] == (-1, 0, 1)
    bushy = bush.propose([0, 1], 9)
    assert bushy.parents.count(-1) >= 2
    assert {bushy.tokens[index] for index, one in enumerate(bushy.parents) if one < 0} <= {0, 1, 2}


@pytest.mark.parametrize("limit", [0, 1, 5, 50])
def test_a_draft_keeps_its_size_and_names_earlier_parents(limit):
    drafter = drafter_of(nodes=20)
    generator = torch.Generator().manual_seed(0)
    for before, token in itertools.product(range(6), range(6)):
        drafter.learn([before, token], torch.randn(2, 6, generator=generator))
    draft = drafter.propose([1, 2, 3], limit)
    assert len(draft.tokens) == min(limit, 20)
    assert all(parent < index for index, parent in enumerate(draft.parents))
    pairs = list(zip(draft.parents, draft.tokens, strict=True))
    assert len(set(pairs)) == len(pairs)


def test_nothing_is_drafted_after_what_was_never_heard():
    assert drafter_of().propose([3, 1], 8).tokens == ()
    assert drafter_of().propose([3], 8).tokens == ()


def test_the_oldest_pairs_give_way():
    drafter = drafter_of(contexts=2)
    for before in (0, 1, 2):
        drafter.learn([before, 5], says([1 / 6] * 6, [1 / 6] * 6))
    assert [bool(drafter.after(before, 5)) for before in (0, 1, 2)] == [False, True, True]
    drafter.learn([1, 5], says([1 / 6] * 6, [1 / 6] * 6))
    drafter.learn([3, 5], says([1 / 6] * 6, [1 / 6] * 6))
    drafter.learn([4, 5], says([1 / 6] * 6, [1 / 6] * 6))
    assert [before for before in range(6) if drafter.after(before, 5)] == [3, 4]
    assert drafter._tokens.shape == (2, 3)
    assert drafter.nbytes > drafter._tokens.nbytes + drafter._chances.nbytes


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_the_text_is_that_of_plain_greedy_decoding_and_calls_are_saved(family):
    model, gained = TransformersModel(tiny.build(family)), []
    drafter = Aded(nodes=12).drafter(model)
    prompt = tiny.tokens(1, 10)[0].tolist()
    (plain,) = generate(model, [prompt], 24, ignore_end=True)
    for _ in range(2):
        fast = speculate(model, drafter, prompt, 24, ignore_end=True)
        assert fast.tokens == plain.tokens
        gained.append(fast.tokens_per_call)
    assert gained[1] > max(1.5, gained[0]), "what the first text left helps the same text again"
