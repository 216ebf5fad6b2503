"""Embedding and head in integers of a few bits."""

import pytest
import torch

from backend import formats
from backend.compress import compress
from backend.dimensions import Dimensions
from backend.errors import ModelError, OutOfReachError
from backend.formats.base import Format
from backend.layers import describe
from backend.measure.size import resident
from backend.methods import find
from backend.models import artefact
from backend.models.language_model import TransformersModel
from backend.models.view import View
from backend.recipes import Recipe
from backend.sizes import size_of, turned
from backend.sources import ModelSource
from tests import tiny_transformers as tiny
from tests.lean_models import follow, near
from tests.test_packed import integers

EMBEDDING = find("embedding")
ENDS = ("embedding", "head")
DEFAULT = Dimensions.of(ModelSource.parse("default"))
FAMILIES = ["llama", "qwen3", "gpt2", "gemma3", "phi", "opt", "mixtral", "neox"]


def test_a_row_by_hand():
    """Of 8 bits around zero a step is the largest size over 127.5, here 2."""
    table = torch.tensor([[255.0, -255.0, 1.0, 0.9, 7.1, -3.0, 100.0, 0.0]])
    held = EMBEDDING(bits=9.0, group_size=0).hold(table.repeat(1, 4))  # 16 bits of 32 columns
    assert isinstance(held, formats.IntegerGroups)
    # 255 and 1 lie in the middle of two, and 128 is beyond the largest code
    wanted = torch.tensor([[254.0, -256.0, 0.0, 0.0, 8.0, -4.0, 100.0, 0.0]]).repeat(1, 4)
    assert torch.equal(held.dense(), wanted)
    assert held.nbytes == 32 + 2


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_keeps_its_bytes_and_comes_back(family, tied, tmp_path):
    model = tiny.build(family, dtype=torch.bfloat16, tie_word_embeddings=tied)
    source, tokens = tiny.loaded(model, tmp_path / "dense"), tiny.tokens()
    recipe = Recipe.parse("embedding@6")
    dense, said = (size_of(one, Dimensions.of(source.source)) for one in (Recipe(()), recipe))
    before = resident([model]).total
    embedding = View(model).embedding.weight.detach().clone()
    head = View(model).head.weight.detach().clone()
    result = compress(source, recipe, tiny.tokens(4, 16))
    view = result.view
    scale = getattr(view.embedding, "scale", 1.0)
    for module, was in ((view.embedding, embedding), (view.head, head)):
        assert torch.equal(module.held.dense(), EMBEDDING(bits=6).hold(was.float()).dense())
    looked_up = view.embedding(torch.tensor([3]))[0].float()
    near(looked_up, view.embedding.held.dense()[3] * scale, 0.01)
    assert (view.embedding.held is view.head.held) == tied
    assert said.exact
    saved = before - resident([model]).total
    assert 0 < dense.weights - said.weights <= saved <= dense.weights - said.weights + 2
    assert result.remarks == []
    expected = model(input_ids=tokens).logits
    artefact.save(view, source, recipe, result.structure, tmp_path / "artefact")
    found = artefact.load(tmp_path / "artefact")
    assert torch.equal(found.loaded.model(input_ids=tokens).logits, expected)
    ends = [row["role"] for row in describe(tmp_path / "artefact") if row["role"] in ENDS]
    assert ends == (["embedding"] if tied else ["embedding", "head"])


@pytest.mark.parametrize("before", ["rtn@4.25", "sparsegpt(pattern=2:4)", "slicegpt@13"])
def test_it_follows_what_treats_the_blocks_and_goes_in_one_call(before):
    model = tiny.build("llama", tie_word_embeddings=True, hidden_size=128)
    source = tiny.loaded_here(model)
    compress(source, Recipe.parse(f"{before} + embedding"), tiny.tokens(4, 16))
    lean, plain = TransformersModel(model), TransformersModel(model, lean=False)
    assert lean.session(1, 4)._step is not None
    near(follow(lean), follow(plain), 1e-3)


def test_tables_that_are_held_already_stay_and_say_so():
    model = tiny.build("llama", dtype=torch.bfloat16)
    source = tiny.loaded_here(model)
    recipe = Recipe.parse("vocab-trim@15 + embedding")
    result = compress(source, recipe, tiny.tokens(4, 16))
    alone = Recipe.parse("vocab-trim@15")
    assert size_of(recipe, DEFAULT) == size_of(alone, DEFAULT)  # so none is counted as saved
    assert "held already" in result.remarks[-1]
    assert isinstance(result.view.embedding.held, formats.SharedRows)


def test_a_budget_turns_the_blocks_before_the_tables():
    recipe = turned(Recipe.parse("gptq@4 + embedding@6"), 3)
    assert recipe.text() == "gptq@3 + embedding@6"
    assert turned(Recipe.parse("embedding@6"), 3).text() == "embedding@3"


def test_what_cannot_be_held_is_refused_by_its_reach():
    with pytest.raises(OutOfReachError, match=r"2 x 4 .* bits a weight or more, not 4"):
        EMBEDDING(bits=4).outline(2, 4)


def test_a_model_without_tables_is_refused():
    class Bare:
        tables = ()

    with pytest.raises(ModelError, match="embedding needs a table of tokens"):
        EMBEDDING().saved(Bare())


@pytest.mark.security
@pytest.mark.parametrize("token", [-1, 12, 1 << 40])
def test_an_id_that_a_held_table_does_not_have_is_refused(token):
    held = EMBEDDING(bits=8.5).hold(torch.ones(12, 128))
    table = formats.HeldEmbedding(held, torch.bfloat16)
    assert table(torch.tensor([[0, 11]])).shape == (1, 2, 128)
    with pytest.raises(IndexError, match="Rows of this matrix are 0 to 11"):
        table(torch.tensor([[0, token]]))


@pytest.mark.parametrize("kind", ["one width", "two widths", "zero points", "offsets"])
def test_a_token_is_read_without_the_rest_of_its_table(kind, monkeypatch):
    table = torch.randn(40, 128, generator=torch.Generator().manual_seed(0))
    held = {
        "one width": lambda: EMBEDDING(bits=8.125).hold(table),
        "two widths": lambda: EMBEDDING(bits=5.5).hold(table),
        "zero points": lambda: integers(40, 128, 5, 32, "zero-point"),
        "offsets": lambda: integers(40, 128, 3, 64, "float"),
    }[kind]()
    assert isinstance(held, formats.Rows) == (kind == "two widths")
    wanted, places = held.dense(), torch.tensor([39, 0, 7, 7])
    monkeypatch.setattr(Format, "lying", lambda _: None)  # as on a GPU, or without a compiler
    for whole in (formats.IntegerGroups, formats.Rows):
        monkeypatch.setattr(whole, "dense", lambda _: pytest.fail("made dense"))
    assert torch.equal(held.take(places), wanted[places])
