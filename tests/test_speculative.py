"""Speculative decoding with a second model: its drafts, its cache, its recipe."""

import pytest
import torch

from backend.decoding.greedy import generate
from backend.decoding.second_model import ModelDrafter
from backend.decoding.speculate import speculate
from backend.errors import RecipeError, SettingError, UnknownNameError
from backend.methods.decode.speculative import Speculative
from backend.models.language_model import TransformersModel
from backend.recipes import Recipe
from tests import tiny_transformers as tiny
from tests.tiny_model import TinyModel


def test_the_model_itself_as_draft_is_always_right():
    """Four drafted and its own: five tokens a call."""
    model = TinyModel(seed=2).double()
    (plain,) = generate(model, [[5, 6]], 31)
    fast = speculate(model, ModelDrafter(model, 4), [5, 6], 31)
    assert fast.tokens == plain.tokens
    assert fast.accepted == (4,) * 6


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "neox"])
def test_another_model_as_draft_changes_no_token(family):
    model, other = (TransformersModel(tiny.build(family, seed=seed)) for seed in (0, 1))
    for seed in range(2):
        prompt = tiny.tokens(1, 8, seed=seed)[0].tolist()
        (plain,) = generate(model, [prompt], 30, ignore_end=True)
        fast = speculate(model, ModelDrafter(other, 3), prompt, 30, ignore_end=True)
        assert fast.tokens == plain.tokens


def test_a_draft_is_what_the_second_model_writes_after_the_same_text():
    """After refusals too: its cache is cut back to what the texts share."""
    model, other = TinyModel(seed=1).double(), TinyModel(seed=4).double()
    asked = []

    class Noted(ModelDrafter):
        def propose(self, tokens, limit):
            draft = super().propose(tokens, limit)
            if limit == 0:
                return draft
            (plain,) = generate(other, [list(tokens)], len(draft.tokens), ignore_end=True)
            asked.append(draft.tokens == plain.tokens)
            return draft

    speculate(model, Noted(other, 3), [1, 2, 3], 25)
    assert len(asked) > 5
    assert all(asked)


def test_the_model_as_its_own_draft_is_kept_when_sampling_too():
    """p equals q, so that nothing is refused."""
    model = TinyModel(seed=2).double()
    fast = speculate(model, ModelDrafter(model, 3), [5, 6], 25, temperature=1.0, seed=3)
    assert fast.accepted == (3,) * 6


def test_a_recipe_names_its_draft():
    recipe = Recipe.parse("gptq@4 + speculative(draft=lord@8 + rtn@4, draft_length=6)")
    assert recipe.draft() == Recipe.parse("lord@8 + rtn@4")
    assert Recipe.parse(recipe.text()) == recipe
    assert Recipe.from_json(recipe.to_json()) == recipe
    nested = Recipe.parse("speculative(draft=gptq(bits=3, group_size=32), draft_length=2)")
    assert nested.draft().stages[0].group_size == 32
    assert nested.stages[0].draft_length == 2
    assert Recipe.parse("gptq@4").draft() is None


@pytest.mark.parametrize("draft", ["copyspec", "rtn@4 + kv-int", "speculative"])
def test_a_draft_that_is_more_than_a_model_is_refused(draft):
    with pytest.raises(RecipeError, match="make one"):
        Recipe.parse(f"speculative(draft={draft})")


def test_an_unknown_draft_is_refused_by_its_name():
    with pytest.raises(UnknownNameError, match="nosuch"):
        Recipe.parse("speculative(draft=nosuch@4)")


def test_without_its_second_model_it_says_what_is_missing():
    with pytest.raises(SettingError, match="rtn@4"):
        Speculative().drafter(TinyModel())


def test_a_second_model_that_cannot_be_cut_back_drafts_one_token():
    """A sliding window that is full keeps what was fed; one token needs nothing fed."""
    model = TransformersModel(tiny.build("llama"))
    other = TransformersModel(tiny.build("gemma3", vocab_size=64))
    prompt = tiny.tokens(1, 30)[0].tolist()
    (plain,) = generate(model, [prompt], 20, ignore_end=True)
    fast = speculate(model, ModelDrafter(other, 4), prompt, 20, ignore_end=True)
    assert fast.tokens == plain.tokens
    assert torch.tensor(fast.accepted).max() <= 1
