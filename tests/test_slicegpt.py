"""SliceGPT: turning changes nothing, cutting keeps the budget, saving keeps the cut."""

import pytest
import torch

from backend.calibrate.walk import Walk
from backend.compress import compress
from backend.errors import OutOfReachError
from backend.methods.structure.slicegpt import MODELS, Slicegpt
from backend.models import artefact
from backend.models.language_model import TransformersModel
from backend.models.view import View
from backend.recipes import Recipe
from tests import tiny_transformers as tiny

BIASED = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {},
    "qwen2": {},
    "qwen3": {"attention_bias": True},
}
CASES = [(family, tied, {}) for family in MODELS for tied in (False, True)]
CASES += [(family, False, changes) for family, changes in BIASED.items() if changes]


def numbers(model):
    return sum(parameter.numel() for parameter in model.parameters())


def build(family, tied=False, **changes):
    return tiny.build(family, tie_word_embeddings=tied, **changes)


class Whole(Slicegpt):
    """Turns, and cuts nothing."""

    def channels(self, anatomy):
        return anatomy.text["hidden_size"]


@pytest.mark.parametrize(("family", "tied", "changes"), CASES)
def test_turning_without_cutting_changes_no_logit(family, tied, changes):
    model, tokens = build(family, tied, **changes), tiny.tokens(4, 24)
    expected = model(input_ids=tokens).logits
    view = View(model)
    assert Whole().rewrite(Walk(view, tokens)) == {"channels": tiny.WIDTH}
    assert not torch.equal(view.embedding.weight, build(family, tied, **changes).lm_head.weight)
    found = model(input_ids=tokens).logits
    assert torch.allclose(found, expected, atol=2e-3, rtol=1e-3)
    assert (view.head.weight is view.embedding.weight) is tied


@pytest.mark.parametrize(("family", "tied", "changes"), CASES)
@pytest.mark.parametrize("bits", [5.0, 9.0, 13.0])
def test_the_model_takes_at_most_its_budget_and_one_step_more_would_not(
    family, tied, changes, bits
):
    model = build(family, tied, **changes)
    original = numbers(model)
    record = Slicegpt(bits).rewrite(Walk(View(model), tiny.tokens(4, 24)))
    assert numbers(model) <= bits / 16 * original
    wider = build(family, tied, **changes)

    class Wider(Slicegpt):
        def channels(self, anatomy):
            return record["channels"] + 1

    Wider(bits).rewrite(Walk(View(wider), tiny.tokens(4, 24)))
    assert numbers(wider) > bits / 16 * original


def test_signals_in_few_directions_survive_the_cut_of_the_others():
    """Embedding and everything written to the stream lie in 12 of 32 directions: cutting down
    to 12 loses nothing."""
    model, tokens = build("llama"), tiny.tokens(4, 24)
    directions = torch.linalg.qr(torch.randn(32, 12, generator=torch.Generator().manual_seed(3))).Q
    onto = directions @ directions.T
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("embed_tokens.weight"):
                parameter.copy_(parameter @ onto)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.copy_(onto @ parameter)
    expected = model(input_ids=tokens).logits

    class Twelve(Slicegpt):
        def channels(self, anatomy):
            return 12

    Twelve().rewrite(Walk(View(model), tokens))
    assert torch.allclose(model(input_ids=tokens).logits, expected, atol=5e-3, rtol=1e-3)


def test_a_larger_budget_changes_the_logits_less():
    tokens = tiny.tokens(4, 24)
    expected = build("llama")(input_ids=tokens).logits
    errors = []
    for bits in (6.0, 10.0, 14.0, 16.0):
        model = build("llama")
        Slicegpt(bits).rewrite(Walk(View(model), tokens))
        errors.append(float((model(input_ids=tokens).logits - expected).square().mean()))
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(("family", "tied", "changes"), CASES)
def test_a_cut_model_comes_back_from_disk_bit_for_bit(family, tied, changes, tmp_path):
    model, tokens = build(family, tied, **changes), tiny.tokens()
    source = tiny.loaded(model, tmp_path / "dense")
    recipe = Recipe.parse("slicegpt@10 + rtn(bits=6, group_size=32)")
    result = compress(source, recipe, tiny.tokens(4, 16))
    expected = model(input_ids=tokens).logits
    assert torch.isfinite(expected).all()
    artefact.save(result.view, source, recipe, result.structure, tmp_path / "artefact")
    found = artefact.load(tmp_path / "artefact", packed=False)
    assert torch.equal(found.loaded.model(input_ids=tokens).logits, expected)
    assert numbers(found.loaded.model) == numbers(model)
    session = TransformersModel(found.loaded.model).session(2, 12)
    parts = [session.feed(part) for part in tokens.split([7, 5], dim=1)]
    gap = torch.cat(parts, 1) - expected
    assert gap.norm() < 5e-4 * expected.norm()  # held codes meet activations of 16 bits


def test_a_model_too_small_for_the_budget_is_refused_by_its_reach():
    model = build("llama", hidden_size=8, head_dim=8)
    walk = Walk(View(model), tiny.tokens(4, 24))
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(OutOfReachError, match=r"slicegpt holds \d\.\d+ .* or more, not 1;"):
        Slicegpt(1.0).rewrite(walk)
    after = list(model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
