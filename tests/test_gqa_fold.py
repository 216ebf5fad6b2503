"""GQA-fold: merged heads that lose nothing where nothing is to be lost, and least elsewhere."""

import pytest
import torch

from backend.calibrate.walk import Walk
from backend.compress import compress
from backend.methods.base import Needs
from backend.methods.structure import gqa_fold
from backend.methods.structure.gqa_fold import GqaFold
from backend.models import artefact
from backend.models.language_model import TransformersModel
from backend.models.view import View
from backend.recipes import Recipe
from tests import tiny_transformers as tiny
from tests.contract import normal

WINDOWS = tiny.tokens(4, 24)


def turning(width, angle):
    """A matrix that turns every rotary pair of a head by one angle."""
    cosine, sine = (getattr(torch.tensor(angle), name)() for name in ("cos", "sin"))
    eye = torch.eye(width // 2)
    return torch.cat(
        [torch.cat([cosine * eye, -sine * eye], 1), torch.cat([sine * eye, cosine * eye], 1)]
    )


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_heads_that_say_the_same_in_other_turns_are_merged_without_a_trace(family):
    """Keys twice as loud and turned by 0.7, values mixed by any matrix: one space each."""
    model, tokens = tiny.build(family), tiny.tokens()
    mix = normal(8, 8, seed=4)
    with torch.no_grad():
        for block in model.model.layers:
            attention = block.self_attn
            for name, change in (("k_proj", 2 * turning(8, 0.7)), ("v_proj", mix)):
                linear = getattr(attention, name)
                linear.weight[8:] = change @ linear.weight[:8]
                if linear.bias is not None:
                    linear.bias[8:] = change @ linear.bias[:8]
    expected, whole = model(input_ids=tokens).logits, View(model).numbers
    record = GqaFold(15.4).rewrite(Walk(View(model), WINDOWS))
    assert record == {"heads": 1}
    assert torch.allclose(model(input_ids=tokens).logits, expected, atol=2e-4)
    assert View(model).numbers <= 15.4 / 16 * whole


def test_values_lose_what_the_best_directions_of_their_space_lose():
    view = View(tiny.build("qwen2", num_hidden_layers=1))
    walk = Walk(view, WINDOWS)
    seen = walk.gather(0, Needs.HESSIAN)
    attention = view.blocks[0].self_attn
    inputs = view.blocks[0].input_layernorm(torch.cat([one.flatten(0, 1) for one in walk.hidden]))

    def written():
        values = attention.v_proj(inputs).double().unflatten(1, (-1, 8))
        reader = attention.o_proj(torch.eye(32)).double().T.reshape(32, 4, 8)
        own = values.repeat_interleave(4 // values.shape[1], 1)
        return torch.einsum("thi,ohi->tho", own, reader).flatten(1)

    before = written()
    gqa_fold._merge_values(view, {site.role: site for site in view.sites(0)}, seen, 1)
    least = float(torch.linalg.svdvals(before)[8:].square().sum())
    assert float((written() - before).square().sum()) == pytest.approx(least, rel=1e-3)


def test_the_cache_shrinks_with_the_heads_and_an_artefact_comes_back(tmp_path):
    recipe = Recipe.parse("gqa-fold@15.4 + rtn(bits=8.25, group_size=32)")
    loaded = tiny.loaded(tiny.build("qwen2"), tmp_path / "model")
    tokens = tiny.tokens(1, 12)

    def cached(model):
        session = TransformersModel(model).session(1, 12)
        session.feed(tokens)
        return session.cache_bytes()

    before = cached(loaded.model)
    result = compress(loaded, recipe, WINDOWS)
    assert before == 2 * cached(result.view.model)
    artefact.save(result.view, loaded, recipe, result.structure, tmp_path / "artefact")
    again = artefact.load(tmp_path / "artefact", packed=False, dtype=torch.float32).loaded.model
    expected = result.view.model(input_ids=tokens).logits
    assert torch.allclose(again(input_ids=tokens).logits, expected, atol=1e-4)
    assert again.config.num_key_value_heads == 1
    session = TransformersModel(again).session(1, 12)
    parts = [session.feed(part) for part in tokens.split([7, 1, 1, 3], dim=1)]
    assert torch.allclose(torch.cat(parts, 1), expected, atol=2e-3)


def test_a_budget_merges_no_more_heads_than_it_must():
    anatomy = View(tiny.build("llama", num_key_value_heads=4)).anatomy()
    found = {GqaFold(bits).heads(anatomy) for bits in (14.3, 15.0, 15.9, 16.0)}
    assert found <= {1, 2, 4}
    assert GqaFold(16.0).heads(anatomy) == 4
    assert GqaFold(15.9).heads(anatomy) == 2
