"""MoDeGPT: each way of narrowing against hand calculation and brute force."""

import itertools

import pytest
import torch

from backend.calibrate.walk import Walk
from backend.compress import compress
from backend.measure import size
from backend.methods.base import Needs
from backend.methods.structure import _pairs
from backend.methods.structure.modegpt import Modegpt, Widths
from backend.models import artefact, units
from backend.models.language_model import TransformersModel
from backend.models.placed import PlacedLinear
from backend.models.view import View
from backend.recipes import Recipe
from tests import tiny_transformers as tiny
from tests.contract import normal

WINDOWS = tiny.tokens(4, 24)


def held_bytes(model):
    """All that the blocks keep, read once; in 16 bits a number."""
    model(input_ids=tiny.tokens())
    layers = model.model.layers
    beside = sum(part.numel() for part in model.parameters())
    beside -= sum(part.numel() for part in layers.parameters())
    return 2 * beside + size.resident(layers).total


def test_leverage_is_that_of_the_ridge_by_hand():
    """diag(4, 1, 1) and one column: ridge (1 + 1) / 1, scores 4 / 6 and 1 / 3."""
    found = _pairs.leverage(torch.diag(torch.tensor([4.0, 1.0, 1.0]).double()), 1)
    assert found.tolist() == pytest.approx([4 / 6, 1 / 3, 1 / 3])


def test_what_reads_fewer_neurons_is_the_least_squares_fit_to_what_read_all():
    signals, weight = normal(50, 6).double(), normal(3, 6, seed=1).double()
    stay = torch.tensor([True, False, True, True, False, False])
    found = _pairs.nystrom(weight, signals.T @ signals / 50, stay)
    expected = torch.linalg.lstsq(signals[:, stay], signals @ weight.T).solution.T
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_values_lose_what_the_best_product_of_that_rank_loses(family):
    """Eckart and Young, for each group of heads: what its heads write of the values it reads."""
    view = View(tiny.build(family, num_hidden_layers=1))
    walk = Walk(view, WINDOWS)
    seen = walk.gather(0, Needs.HESSIAN)
    inputs = torch.cat([one.flatten(0, 1) for one in walk.hidden])
    inputs = view.blocks[0].input_layernorm(inputs).double()
    sites = {site.role: site for site in view.sites(0)}
    attention = view.blocks[0].self_attn

    def written():
        values = attention.v_proj(inputs.float()).double().view(-1, 2, 8)
        reader = attention.o_proj(torch.eye(32)).double().T.view(32, 2, 2, 8)  # no bias here
        return torch.einsum("tgi,ogpi->gtpo", values, reader)

    before = written()
    _pairs.narrow_values(view, sites, seen, 5)
    after = written()
    for old, new in zip(before.flatten(2), after.flatten(2), strict=True):
        least = float(torch.linalg.svdvals(old)[5:].square().sum())
        assert float((new - old).square().sum()) == pytest.approx(least, rel=1e-3)


def test_queries_and_keys_keep_the_loudest_rotary_pairs():
    view = View(tiny.build("llama", num_hidden_layers=1))
    walk = Walk(view, WINDOWS)
    seen = walk.gather(0, Needs.HESSIAN)
    attention = view.blocks[0].self_attn
    inputs = torch.cat([one.flatten(0, 1) for one in walk.hidden])
    inputs = view.blocks[0].input_layernorm(inputs)
    queries = attention.q_proj(inputs).square().mean(0).view(2, 2, 2, 4)  # share, head, side, pair
    keys = attention.k_proj(inputs).square().mean(0).view(2, 2, 4)
    score = queries.sum((1, 2)) * keys.sum(1)
    _pairs.narrow_keys(view, {site.role: site for site in view.sites(0)}, seen, 2)
    for group, pairs in enumerate(score.topk(2, dim=1).indices.tolist()):
        channels = sorted([*pairs, *(one + 4 for one in pairs)])
        found = attention.k_proj.places
        assert found[found // 8 == group].remainder(8).tolist() == channels
        for head in (2 * group, 2 * group + 1):
            found = attention.q_proj.places
            assert found[found // 8 == head].remainder(8).tolist() == channels


def test_blocks_that_turn_the_stream_less_keep_less_and_the_budget_is_spent():
    anatomy = View(tiny.build("llama", num_hidden_layers=2)).anatomy()
    even = Modegpt(12.0, temperature=100.0).plan(anatomy, [0.1, 0.4])
    assert even[0] == even[1]
    first, second = Modegpt(12.0, temperature=0.3).plan(anatomy, [0.1, 0.4])
    assert first.neurons < second.neurons
    assert Modegpt(16.0).plan(anatomy, [0.1, 0.4]) == [Widths(64, 4, 8)] * 2


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("bits", [11.0, 13.0, 15.0])
def test_bytes_of_matrices_and_masks_stay_within_the_budget(family, bits):
    model = tiny.build(family, num_hidden_layers=3, dtype=torch.bfloat16)
    whole = held_bytes(model)
    Modegpt(bits).rewrite(Walk(View(model), WINDOWS))
    assert 0.9 * bits / 16 * whole < held_bytes(model) <= bits / 16 * whole


def test_later_stages_treat_the_narrow_matrices_and_an_artefact_comes_back(tmp_path):
    recipe = Recipe.parse("modegpt@13 + rtn(bits=8.25, group_size=32)")
    loaded = tiny.loaded(tiny.build("qwen2"), tmp_path / "model")
    result = compress(loaded, recipe, WINDOWS)
    placed = [one for one in result.view.model.modules() if isinstance(one, PlacedLinear)]
    assert {one.side for one in placed} == {"inputs", "outputs"}
    assert all(hasattr(one.kept, "held") for one in placed)
    roles = {site.role for site in result.view.all_sites()}
    assert roles >= {"query", "key", "value", "attention-output"}
    artefact.save(result.view, loaded, recipe, result.structure, tmp_path / "artefact")
    again = artefact.load(tmp_path / "artefact", packed=False, dtype=torch.float32).loaded.model
    tokens = tiny.tokens(1, 12)
    expected = result.view.model(input_ids=tokens).logits
    assert torch.allclose(again(input_ids=tokens).logits, expected, atol=1e-4)
    session = TransformersModel(again).session(1, 12)
    parts = [session.feed(part) for part in tokens.split([7, 1, 1, 3], dim=1)]
    assert torch.allclose(torch.cat(parts, 1), expected, atol=2e-3)


def test_the_pairs_of_neurons_found_are_nearly_the_best_of_all():
    """Against every choice of two of five neurons, fitted by least squares."""
    mix = normal(5, 5, seed=3)
    signals = normal(200, 5) @ mix
    weight, moment = normal(4, 5, seed=2).double(), (signals.T @ signals / 200).double()
    lost = {}
    for chosen in itertools.combinations(range(5), 2):
        stay = torch.zeros(5, dtype=torch.bool)
        stay[list(chosen)] = True
        change = torch.zeros(4, 5).double()
        change[:, stay] = _pairs.nystrom(weight, moment, stay)
        change -= weight
        lost[chosen] = float(((change @ moment) * change).sum())
    found = tuple(sorted(_pairs.leverage(moment, 2).topk(2).indices.tolist()))
    assert sorted(lost, key=lost.get).index(found) < 5, "in the better half"


def test_units_of_the_network_are_cut_for_real():
    model = tiny.build("llama")
    Modegpt(12.0).rewrite(Walk(View(model), WINDOWS))
    (first, *_) = [one for one in units.find(View(model))[0] if one.neurons]
    assert first.units == model.model.layers[0].mlp.down_proj.in_features < 64
