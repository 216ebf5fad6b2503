"""Layer dropping, FLAP and vocabulary trimming against facts worked out by hand."""

import itertools
import math

import pytest
import torch

from backend.calibrate.walk import Walk
from backend.errors import OutOfReachError
from backend.formats import HeldEmbedding, SharedRows
from backend.methods.structure.flap import Flap
from backend.methods.structure.layer_drop import LayerDrop, spaced
from backend.methods.structure.vocab_trim import VocabTrim, stand_in
from backend.models import units
from backend.models.view import View
from tests import tiny_transformers as tiny

WINDOWS = tiny.tokens(4, 24)


def numbers(model):
    return sum(part.numel() for part in model.parameters())


# Blocks


@pytest.mark.parametrize(
    ("blocks", "count", "expected"),
    [
        (32, 16, [0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31]),
        (6, 3, [0, 3, 5]),
        (4, 3, [0, 2, 3]),
        (5, 5, [0, 1, 2, 3, 4]),
        (5, 1, [0]),
    ],
)
def test_blocks_stay_at_even_distances_the_first_and_the_last_among_them(blocks, count, expected):
    assert spaced(blocks, count) == expected
    if count > 1:
        gaps = {b - a for a, b in itertools.pairwise(expected)}
        assert max(gaps) - min(gaps) <= 1


def test_a_model_whose_other_blocks_do_nothing_loses_nothing():
    model, tokens = tiny.build("llama", num_hidden_layers=5), tiny.tokens()
    with torch.no_grad():
        for place in (1, 3):
            model.model.layers[place].self_attn.o_proj.weight.zero_()
            model.model.layers[place].mlp.down_proj.weight.zero_()
    expected, whole = model(input_ids=tokens).logits, numbers(model)
    view = View(model)
    record = LayerDrop(11.0).rewrite(Walk(view, WINDOWS))
    assert record == {"blocks": [0, 2, 4]}
    assert torch.allclose(model(input_ids=tokens).logits, expected, atol=1e-6)
    assert numbers(model) <= 11 / 16 * whole
    assert [block.self_attn.layer_idx for block in view.blocks] == [0, 1, 2]
    assert model.config.num_hidden_layers == 3


def test_fewer_bits_than_the_ends_of_the_model_are_refused():
    with pytest.raises(OutOfReachError, match=r"layer-drop holds \d+\.\d+ .* or more, not 1;"):
        LayerDrop(1.0).rewrite(Walk(View(tiny.build("llama")), WINDOWS))


# Heads and neurons


@pytest.mark.parametrize("family", list(tiny.CONFIGS))
def test_units_that_say_the_same_of_every_token_are_left_out_without_a_trace(family):
    """A neuron or head that writes a constant is replaced by a bias; nothing else changes."""
    model, tokens = tiny.build(family), tiny.tokens()
    view = View(model)
    groups, unknown = units.find(view)
    assert not unknown
    roles = {site.name: site.role for site in view.all_sites()}
    found = {roles[group.reader] for group in groups}
    assert found == {"attention-output", "down"}
    chosen = [group for group in groups if group.block == 0 and roles[group.reader] == "down"]
    expected = model(input_ids=tokens).logits
    for group in chosen:
        reader = view.model.get_submodule(group.reader)
        with torch.no_grad():  # nobody reads unit 1
            units._oriented(reader)[:, group.width : 2 * group.width] = 0
    silent = model(input_ids=tokens).logits
    for group in groups:
        stay = torch.ones(group.units, dtype=torch.bool)
        if group in chosen:
            stay[1] = False
        units.cut(view, group, stay, torch.zeros(group.units * group.width))
    assert torch.allclose(model(input_ids=tokens).logits, silent, atol=1e-4)
    assert not torch.allclose(expected, silent, atol=1e-3)


@pytest.mark.parametrize("family", list(tiny.CONFIGS))
def test_a_head_that_nobody_reads_goes_with_its_keys_and_values(family):
    model, tokens = tiny.build(family), tiny.tokens()
    view = View(model)
    roles = {site.name: site.role for site in view.all_sites()}
    groups = [one for one in units.find(view)[0] if roles[one.reader] == "attention-output"]
    for group in groups:
        reader = view.model.get_submodule(group.reader)
        with torch.no_grad():
            units._oriented(reader)[:, : group.width] = 0
    expected, whole = model(input_ids=tokens).logits, numbers(model)
    for group in groups:
        stay = torch.arange(group.units) > 0
        units.cut(view, group, stay, torch.zeros(group.units * group.width))
    assert torch.allclose(model(input_ids=tokens).logits, expected, atol=1e-4)
    assert whole - numbers(model) == sum(group.cost - group.bias for group in groups)


def test_the_bias_makes_good_the_mean_of_what_is_left_out():
    model = tiny.build("llama")
    view = View(model)
    before = {site.name: view.weight(site).clone() for site in view.all_sites()}
    seen = Walk(view, WINDOWS).gather(0, Flap.needs)
    record = Flap(13.0).rewrite(Walk(view, WINDOWS))
    name = "model.layers.0.mlp.down_proj"
    stay = torch.tensor(record["kept"][name])
    assert not bool(stay.all())
    gone = before[name][:, ~stay] @ seen[name].means[~stay]
    assert torch.allclose(view.model.get_submodule(name).bias, gone, atol=1e-5)
    assert torch.equal(view.model.get_submodule(name).weight, before[name][:, stay])


def test_the_score_is_the_variance_times_the_weights_that_read_it():
    """Neurons in one block alone compete here; those with the lowest of the formula go."""
    model = tiny.build("llama", num_hidden_layers=1)
    view = View(model)
    name = "model.layers.0.mlp.down_proj"
    seen = Walk(view, WINDOWS).gather(0, Flap.needs)[name]
    scores = seen.variances * view.model.get_submodule(name).weight.square().sum(0)
    whole = numbers(model)
    record = Flap(14.5).rewrite(Walk(view, WINDOWS))
    stay = torch.tensor(record["kept"][name])
    assert int((~stay).sum()) > 0
    assert float(scores[~stay].max()) < float(scores[stay].min())
    assert numbers(model) <= 14.5 / 16 * whole


# Tokens


@pytest.mark.parametrize("tied", [False, True])
def test_tokens_that_are_used_keep_their_rows_and_the_others_share_one(tied):
    model = tiny.build("llama", tie_word_embeddings=tied)
    view = View(model)
    table = view.embedding.weight.bfloat16().float()  # as it is deployed
    windows = torch.tensor([[5, 5, 5, 9, 9, 7] * 4])
    VocabTrim(15.0).rewrite(Walk(view, windows))
    assert isinstance(view.embedding, HeldEmbedding)
    held = view.embedding.held
    assert isinstance(held, SharedRows)
    dense = held.dense()
    assert torch.equal(dense[[5, 9, 7]], table[[5, 9, 7]])
    gone = torch.tensor([i for i in range(64) if not torch.equal(dense[i], table[i])])
    assert torch.equal(dense[gone], dense[gone[:1]].expand(len(gone), -1))
    if not tied:
        assert torch.allclose(dense[gone[0]], table[gone].mean(0), atol=5e-3)
    assert (view.head.held is held) is tied
    tokens = torch.tensor([[5, 60, 9]])
    assert torch.equal(view.embedding(tokens)[0], dense[tokens[0]])
    hidden = torch.randn(2, tiny.WIDTH)
    assert torch.allclose(view.head(hidden), hidden @ view.head.held.dense().T, atol=1e-5)


def test_the_shared_row_weighs_what_two_opposite_rows_did():
    """By hand: rows (1, 0) and (-1, 0) get 2 and -2 of (2, 0); two of log cosh 2 weigh the same."""
    inputs, rows = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    row = stand_in(rows.mean(0), [(inputs, inputs @ rows.T)], torch.zeros(2))
    assert float(inputs[0] @ row) == pytest.approx(math.log(math.cosh(2)), rel=1e-3)
    assert float(row[1]) == 0, "the mean, where inputs say nothing"
    raised = stand_in(rows.mean(0), [(inputs, inputs @ rows.T + 5)], torch.full((2,), 5.0))
    assert torch.allclose(raised, row, atol=1e-5), "what biases add stays with the biases"


@pytest.mark.parametrize("tied", [False, True])
def test_the_softmax_counts_the_shared_row_once_for_each_token(tied):
    model, tokens = tiny.build("llama", tie_word_embeddings=tied), WINDOWS
    with torch.no_grad():
        model.lm_head.weight.mul_(3)  # rows as far from each other as those of trained models
    view, dense = View(model), model(input_ids=tokens).logits.log_softmax(-1)
    kept = VocabTrim(14.5).chosen(view, tokens, tied)
    mean = model.lm_head.weight[~kept].mean(0)
    plain = model.lm_head.weight.clone()
    plain[~kept] = mean
    seen = []
    hook = model.lm_head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(input_ids=tokens)
    hook.remove()
    VocabTrim(14.5).rewrite(Walk(view, tokens))
    logits = view.head(seen[0])
    shared = logits[..., ~kept][..., 0]
    assert torch.equal(logits[..., ~kept], shared.unsqueeze(-1).expand_as(logits[..., ~kept]))
    whole = logits[..., kept].exp().sum(-1) + int((~kept).sum()) * shared.exp()
    assert torch.allclose(logits.softmax(-1)[..., ~kept][..., 0], shared.exp() / whole, atol=1e-6)

    def divergence(given):
        return float((dense.exp() * (dense - given.log_softmax(-1))).sum(-1).mean())

    assert divergence(logits) < divergence(seen[0] @ plain.T)
    masses = [one.exp()[..., ~kept].sum(-1).mean() for one in (dense, logits.log_softmax(-1))]
    averaged = (seen[0] @ plain.T).softmax(-1)[..., ~kept].sum(-1).mean()
    assert abs(masses[1] - masses[0]) < abs(averaged - masses[0])


def test_a_budget_for_the_whole_vocabulary_changes_nothing():
    model = tiny.build("llama")
    view, before = View(model), model.model.embed_tokens
    assert VocabTrim(16.0).rewrite(Walk(view, WINDOWS)) == {}
    assert view.embedding is before


def test_a_vocabulary_too_small_to_meet_the_budget_is_refused():
    with pytest.raises(OutOfReachError, match=r"vocab-trim holds 1\d\.\d\d .*, not 5;"):
        VocabTrim(5.0).rewrite(Walk(View(tiny.build("llama")), WINDOWS))
