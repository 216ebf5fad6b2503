"""Token Recycling: its table, its tree, its size."""

import numpy as np
import pytest
import torch

from backend.decoding.greedy import generate
from backend.decoding.recycling import DECAY, RecyclingDrafter, template
from backend.decoding.speculate import speculate
from backend.methods.decode.token_recycling import TokenRecycling
from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny


def test_the_table_holds_the_likeliest_tokens_after_each_token():
    drafter = RecyclingDrafter(6, width=2, nodes=6)
    logits = torch.tensor([[0.0, 1, 5, 3, 2, 4], [9, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6.0]])
    drafter.learn([4, 2, 5], logits)
    assert drafter.matrix[4].tolist() == [2, 5]
    assert drafter.matrix[2].tolist() == [0, 5]
    assert drafter.propose([4], 0).tokens == ()
    draft = drafter.propose([1, 4], 6)
    # after 4: 2 and 5; after 2: 0 and 5; 0 was never seen; after 5: 5 and 4
    words = {}
    for index, parent in enumerate(draft.parents):
        words[index] = (*words.get(parent, ()), draft.tokens[index])
    assert set(words.values()) <= {
        (2,), (5,), (2, 0), (2, 5), (5, 5), (5, 4), (2, 5, 5), (5, 5, 5), (2, 5, 4), (5, 5, 4),
        (5, 4, 2), (2, 5, 5, 5), (2, 5, 5, 4), (5, 5, 5, 5),
    }  # fmt: skip
    assert {(2,), (5,), (2, 0)} <= set(words.values())


def test_a_token_never_seen_has_nothing_to_draft():
    assert RecyclingDrafter(6, 2, 6).propose([3], 6).tokens == ()


@pytest.mark.parametrize("nodes", [1, 5, 24, 80])
def test_the_tree_holds_the_likeliest_paths_by_brute_force(nodes):
    tree = template(nodes, 4)
    paths = {}
    for index, (parent, rank) in enumerate(tree):
        paths[index] = (*paths.get(parent, ()), rank)
        assert parent < index
    chance = {
        path: np.prod([(1 - DECAY) * DECAY**rank for rank in path]) for path in paths.values()
    }
    assert len(chance) == nodes
    lowest = min(chance.values())
    frontier = {(*path, 0) for path in chance} | {(0,)}
    frontier |= {(*path[:-1], path[-1] + 1) for path in chance if path[-1] < 3}
    outside = [
        np.prod([(1 - DECAY) * DECAY**rank for rank in path]) for path in frontier - set(chance)
    ]
    assert max(outside) <= lowest + 1e-12
    assert [len(paths[index]) for index in range(nodes)] == sorted(map(len, paths.values()))


def test_the_table_of_the_papers_model_takes_less_than_two_megabytes():
    """Vicuna's 32,000 tokens, 8 candidates."""
    assert RecyclingDrafter(32_000, 8, 80).nbytes < 2_000_000


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_the_text_is_that_of_plain_greedy_decoding_and_calls_are_saved(family):
    model, gained = TransformersModel(tiny.build(family)), []
    drafter = TokenRecycling(nodes=16).drafter(model)
    for seed in (0, 1, 0):
        prompt = tiny.tokens(1, 10, seed=seed)[0].tolist()
        (plain,) = generate(model, [prompt], 30, ignore_end=True)
        fast = speculate(model, drafter, prompt, 30, ignore_end=True)
        assert fast.tokens == plain.tokens
        gained.append(fast.tokens_per_call)
    assert gained[2] >= gained[0], "what the first text left helps the same text again"
    assert gained[2] > 1.2
