"""The Matrix Nuclear-Norm by hand, against singular values, and of a whole model."""

import math

import pytest
import torch

from backend.compress import compress
from backend.measure.representation import matrix_nuclear_norm, norms, readings
from backend.models.language_model import TransformersModel
from backend.recipes import Recipe
from tests import tiny_transformers as tiny
from tests.looking import normal


def test_the_norm_by_hand():
    """About their mean (1, 1) the four states are (2, 0), (-2, 0), (0, 3) and (0, -3).

    Of length one the columns are as long as the root of two each; over four tokens.
    """
    states = torch.tensor([[3.0, 1.0], [-1.0, 1.0], [1.0, 4.0], [1.0, -2.0]])
    assert matrix_nuclear_norm(states) == pytest.approx(2 * math.sqrt(2) / 4)


def test_states_along_one_direction_have_the_least_norm():
    line = torch.zeros(6, 4)
    line[:, 2] = torch.arange(6.0)
    assert matrix_nuclear_norm(line) == pytest.approx(math.sqrt(6) / 6)
    assert matrix_nuclear_norm(normal(6, 4)) > 1.3 * math.sqrt(6) / 6


def test_only_as_many_columns_count_as_there_can_be_directions():
    """Three tokens about their mean, in 50 channels: the three longest of 50 columns."""
    states = normal(3, 50).double()
    centred = states - states.mean(0)
    centred /= centred.norm(dim=1, keepdim=True)
    lengths = sorted(centred.norm(dim=0).tolist())
    assert matrix_nuclear_norm(states) == pytest.approx(sum(lengths[-3:]) / 3)


def test_where_channels_do_not_mix_it_is_the_nuclear_norm_itself():
    states = torch.cat([torch.diag(torch.arange(1.0, 6.0)), -torch.diag(torch.arange(1.0, 6.0))])
    whole = states.double() / states.double().norm(dim=1, keepdim=True)
    expected = float(torch.linalg.matrix_norm(whole, "nuc")) / 10
    assert matrix_nuclear_norm(states) == pytest.approx(expected)


def test_equal_states_are_no_spread_at_all():
    assert matrix_nuclear_norm(torch.ones(5, 3)) == 0.0


@pytest.mark.parametrize("recipe", ["slicegpt@13", "rtn@6", "vocab-trim@14", "layer-drop@13"])
def test_the_states_of_a_compressed_model_are_what_its_head_reads(recipe):
    source = tiny.loaded_here(tiny.build("llama", vocab_size=256))
    compress(source, Recipe.parse(recipe), tiny.tokens(4, 24))
    model, tokens = TransformersModel(source.model), tiny.tokens(2, 12)
    read = model.states(tokens)
    assert torch.allclose(model.model.get_output_embeddings()(read), model.logits(tokens))


def test_a_model_is_as_far_spread_as_itself_and_another_is_not():
    first, second = (TransformersModel(tiny.build("llama", seed=seed)) for seed in (0, 1))
    rows = tiny.tokens(24, 20).tolist()
    own = norms(first.states, rows)
    hidden = first.model.model(input_ids=torch.tensor([rows[2]])).last_hidden_state[0]
    assert own[2] == pytest.approx(matrix_nuclear_norm(hidden))
    documents = [place // 2 for place in range(24)]
    (same,) = readings(own, own, documents)
    assert (same.name, same.value, same.direction) == ("mnn_ratio", 1.0, "none")
    assert same.note.startswith(f"{sum(own) / 24:.4g} a token")
    theirs = norms(second.states, rows)
    (other,) = readings(theirs, own, documents)
    assert other.value == pytest.approx(sum(a / b for a, b in zip(theirs, own, strict=True)) / 24)
    assert other.low < other.value < other.high
    assert readings(own, [0.0] * 24, documents) == []
