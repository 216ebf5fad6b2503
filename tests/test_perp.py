"""PERP: only vectors are trained, they undo what put them out of balance, or are put back."""

import pytest
import torch

from backend.calibrate import tuning
from backend.compress import compress
from backend.errors import RecipeError
from backend.measure import size
from backend.methods import describe
from backend.methods.prune.perp import Perp
from backend.models.view import View
from backend.recipes import Recipe
from tests import tiny_transformers as tiny


def written(model, windows=24, length=16):
    """Text that a model writes itself, so that no other reads it better."""
    text, draw = tiny.tokens(windows, 1), torch.Generator().manual_seed(0)
    for _ in range(length - 1):
        logits = model(input_ids=text).logits[:, -1]
        text = torch.cat([text, torch.multinomial((2 * logits).softmax(-1), 1, generator=draw)], 1)
    return text


def silent(*_):
    """No progress to tell."""


def test_norms_that_were_put_out_of_balance_come_back():
    model = tiny.build("llama")
    windows, true = written(model), model.model.norm.weight.clone()
    with torch.no_grad():
        model.model.norm.weight *= 0.3
    before, far = tuning.loss(View(model), windows), (model.model.norm.weight - true).norm()
    (told,) = tuning.tune(View(model), windows, Perp(steps=150, rate=0.02), silent)
    assert "numbers: " in told
    assert tuning.loss(View(model), windows) < before - 0.05
    assert (model.model.norm.weight - true).norm() < 0.7 * far
    assert not any(part.requires_grad for part in model.parameters())


@pytest.mark.parametrize("recipe", ["sparsegpt@9", "rtn@4", "lord@10", "monarch@12", "slicegpt@14"])
def test_nothing_but_vectors_changes_and_no_byte_is_added(recipe):
    windows = written(tiny.build("llama"))
    found = []
    for text in (recipe, f"{recipe} + perp"):
        source = tiny.loaded_here(tiny.build("llama"))
        found.append(compress(source, Recipe.parse(text), windows).view.model)
    plain, tuned = found
    assert size.resident(plain).total == size.resident(tuned).total
    state = tuned.state_dict()
    changed = [
        name for name, one in plain.state_dict().items() if not torch.equal(one, state[name])
    ]
    assert all(state[name].dim() == 1 for name in changed)
    assert tuning.loss(View(tuned), windows) <= tuning.loss(View(plain), windows)


def test_what_gains_nothing_on_text_kept_apart_is_put_back():
    model = tiny.build("llama")
    before = {name: one.clone() for name, one in model.named_parameters()}
    learned, apart = written(model)[:14], tiny.tokens(2, 16, seed=5)
    windows = torch.cat([learned, apart])
    told = tuning.tune(View(model), windows, Perp(steps=40, rate=0.1), silent)
    if "no gain" in told[0]:
        assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())
    else:
        assert tuning.loss(View(model), apart) < tuning.loss(View(tiny.build("llama")), apart)


def test_biases_are_left_where_norms_alone_are_wanted():
    model = tiny.build("qwen2")
    every, norms = (
        [name for name, one in model.named_parameters() if method.trains(name, one.shape)]
        for method in (Perp(), Perp(parts="norms"))
    )
    assert set(norms) < set(every)
    assert all(name.endswith("norm.weight") for name in norms)
    assert any(name.endswith("q_proj.bias") for name in every)
    assert len(tuning.trained(model, Perp())) == len(every)
    assert describe(Perp)["needs"] == ["text"], "it is trained on some"


def test_alone_it_is_refused_and_after_structure_it_is_not():
    with pytest.raises(RecipeError, match="none comes before"):
        Recipe.parse("perp")
    assert Recipe.parse("slicegpt@12 + perp").text() == "slicegpt@12 + perp"
    assert Recipe.parse("wanda@9 + perp + dfloat11").text() == "wanda@9 + perp + dfloat11@16"
