"""Budgets: what people write is read, what is promised is held, what cannot be is said."""

import copy
import dataclasses
import math

import pytest
import torch

from backend.budget import Budget, fit
from backend.compress import compress
from backend.dimensions import Dimensions
from backend.errors import OutOfReachError, SettingError
from backend.measure.size import resident
from backend.recipes import Recipe
from backend.sizes import level_of, size_of, turned
from backend.sources import ModelSource
from tests import tiny_transformers as tiny

EMBEDDED = Dimensions.of(ModelSource.parse("default"))


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("6 GB", {"nbytes": 6_000_000_000}),
        ("1.5 GiB", {"nbytes": 1.5 * 2**30}),
        ("400kB, 8k context x 2", {"nbytes": 400_000, "context": 8192, "batch": 2}),
        ("1 MB, 512 tokens", {"nbytes": 1_000_000, "context": 512}),
        ("3.5 bits", {"bits": 3.5}),
        ("kld <= 0.05", {"kld": 0.05}),
        ("ppl <= 1.02x, 4 bits", {"perplexity_ratio": 1.02, "bits": 4.0}),
        ("2 MB, >= 20 tok/s", {"nbytes": 2_000_000, "decode_tps": 20.0}),
        (">= 1.5x", {"decode_speedup": 1.5}),
        ("6 GB at 20 tokens a second", {"nbytes": 6e9, "decode_tps": 20.0}),
        ("What is best in 6 GB at 20 tok/s?", {"nbytes": 6e9, "decode_tps": 20.0}),
        (
            "6 GB with 8k context x 4 and 20 tps",
            {"nbytes": 6e9, "context": 8192, "batch": 4, "decode_tps": 20.0},
        ),
        ("<= 900 kB; at least 20 tokens per second", {"nbytes": 900_000, "decode_tps": 20.0}),
        ("at most 4 bits", {"bits": 4.0}),
        ("4-bit", {"bits": 4.0}),
        ("KL ≤ 5e-3", {"kld": 0.005}),
        ("kld 0.05", {"kld": 0.05}),
        ("kld <= 0.05 nats", {"kld": 0.05}),
        ("at most 0.1 nats a token, 2 MB", {"kld": 0.1, "nbytes": 2_000_000}),
        ("1e-3 nats/token", {"kld": 0.001}),
        ("kld <= 0.1, 1.2x faster", {"kld": 0.1, "decode_speedup": 1.2}),
        ("900 kB and 1.5 times as fast as dense", {"nbytes": 900_000, "decode_speedup": 1.5}),
        ("at least 2× faster than the dense model", {"decode_speedup": 2.0}),
    ],
)
def test_a_budget_is_read_as_it_is_said_and_written_as_it_is_read(text, limits):
    found = Budget.parse(text)
    assert found.to_json() == limits
    assert Budget.parse(found.text()) == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is written like"),
        ("six gigabytes", "'six gigabytes' limits nothing"),
        ("6 GB, not too slow", "'not too slow' limits nothing"),
        ("0 bits", "'0 bits' limits nothing"),
        ("0 GB, 4 bits", "'0 GB' limits nothing"),
        ("1.5x", "'1.5x' limits nothing"),  # faster or smaller?
        ("1.5x smaller", "'1.5x smaller' limits nothing"),
        ("0.05", "'0.05' limits nothing"),
        ("4 bits, 3 bits", "limited already"),
        ("512 context", "how many bytes"),
        ("ppl <= 0.9", "better than the dense model"),
    ],
)
def test_what_is_no_budget_is_refused_with_what_would_be(text, told):
    with pytest.raises(SettingError, match=told):
        Budget.parse(text)


def test_a_perplexity_ratio_stands_for_its_logarithm():
    assert Budget.parse("ppl <= 1.02").divergence == pytest.approx(math.log(1.02))
    assert Budget.parse("ppl <= 1.02, kld <= 0.01").divergence == 0.01
    assert Budget.parse("3 bits").divergence == math.inf


def test_the_embedded_model_is_counted_by_hand():
    """128 wide, 256 inside, 4 blocks, 4 heads of 32 over 2 key-value heads, 2,048 tokens."""
    block = 2 * 128 * 128 + 2 * 64 * 128 + 3 * 256 * 128
    assert EMBEDDED.linear == 4 * block
    assert EMBEDDED.parameters == 4 * (block + 2 * 128) + 128 + 2048 * 128
    assert EMBEDDED.kv_numbers == 2 * 4 * 2 * 32
    assert EMBEDDED.kv_bytes(512, 8) == 8 * 512 * 512 * 2
    assert EMBEDDED.frequencies == 2 * 16 * 4


RECIPES = (
    "dense",
    "rtn@4",
    "gptq@3.3",
    "svd@6",
    "sparsegpt(pattern=2:4) + rtn@5",
    "lord@12 + rtn@9",
)


@pytest.mark.parametrize("family", tiny.CONFIGS)
def test_bytes_said_beforehand_are_the_bytes_held(family, tmp_path):
    for number, text in enumerate(RECIPES if family == "llama" else RECIPES[1:4]):
        folder = tmp_path / str(number)
        folder.mkdir()
        loaded = tiny.loaded(tiny.build(family, dtype=torch.bfloat16), folder)
        dimensions = Dimensions.of(loaded.source)
        said = size_of(Recipe.parse(text), dimensions)
        made = sum(buffer.nbytes for buffer in loaded.model.buffers())  # by the code, in no file
        compress(loaded, Recipe.parse(text), tiny.tokens(4, 16))
        assert said.exact
        assert said.weights - dimensions.frequencies == resident(loaded.model).total - made, text
        assert abs(dimensions.frequencies - made) <= 64


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("blocks", ["", "rtn@6 + ", "lord@12 + rtn@9 + ", "svd@8 + "])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_bytes_of_a_narrower_model_are_said_to_the_byte(family, blocks, tied, tmp_path):
    model = tiny.build(family, dtype=torch.bfloat16, tie_word_embeddings=tied)
    loaded = tiny.loaded(model, tmp_path)
    dimensions = Dimensions.of(loaded.source)
    for tables in ("", "embedding@6 + "):
        recipe = Recipe.parse(f"slicegpt@14 + {blocks}{tables}".removesuffix(" + "))
        said = size_of(recipe, dimensions)
        copied = dataclasses.replace(loaded, model=copy.deepcopy(model))
        made = sum(buffer.nbytes for buffer in copied.model.buffers())
        compress(copied, recipe, tiny.tokens(4, 16))
        assert said.exact
        held = resident(copied.model).total - made
        assert said.weights - dimensions.frequencies == held, recipe.text()


@pytest.mark.parametrize("tables", ["", " + embedding@6"])
@pytest.mark.parametrize("cut", ["flap@13", "gqa-fold@15.6", "layer-drop@13", "vocab-trim@15.3"])
def test_bytes_of_a_cut_model_are_at_most_those_said_and_nearly_so(cut, tables, tmp_path):
    """What is cut lies in the blocks, whose matrices are then held in 6 bits; tables are whole."""
    model = tiny.build("llama", dtype=torch.bfloat16, num_hidden_layers=8)
    loaded = tiny.loaded(model, tmp_path)
    recipe, dimensions = Recipe.parse(f"{cut} + rtn@6{tables}"), Dimensions.of(loaded.source)
    said = size_of(recipe, dimensions)
    made = sum(buffer.nbytes for buffer in model.buffers())
    compress(loaded, recipe, tiny.tokens(4, 16))
    held = resident(model).total - made
    assert not said.exact
    assert 0.9 * held < held <= said.weights - dimensions.frequencies


@pytest.mark.parametrize("recipe", ["gptq", "svd", "wanda", "gptq + kv-int@4", "lord@8 + rtn"])
@pytest.mark.parametrize("share", [0.42, 0.5, 0.7])
def test_a_budget_of_bytes_is_met_from_below_and_used_up(recipe, share):
    budget = Budget(nbytes=int(share * EMBEDDED.dense_bytes))
    found = fit(Recipe.parse(recipe), budget, EMBEDDED)
    assert found.missing == 0
    assert found.nbytes == size_of(found.recipe, EMBEDDED).weights <= budget.nbytes
    higher = turned(found.recipe, round(level_of(found.recipe) + 0.01, 2))
    assert (
        size_of(higher, EMBEDDED).weights > budget.nbytes
        or found.nbytes == size_of(higher, EMBEDDED).weights
    )


def test_keys_and_values_leave_less_for_the_weights():
    """8 sequences of 512 tokens take 8 * 512 * 512 * 2 bytes dense, and a quarter at 4 bits."""
    cache = 8 * 512 * 512 * 2
    nbytes = 900_000 + cache + EMBEDDED.buffer_bytes(8)
    dense = fit(Recipe.parse("gptq"), Budget(nbytes=nbytes, context=512, batch=8), EMBEDDED)
    assert dense.size.weights <= 900_000
    assert dense.nbytes == dense.size.weights + cache + EMBEDDED.buffer_bytes(8)
    both = fit(
        Recipe.parse("gptq + kv-int@4"),
        Budget(nbytes=nbytes - 3 * cache // 4, context=512, batch=8),
        EMBEDDED,
    )
    assert level_of(both.recipe) == level_of(dense.recipe)


def test_what_cannot_be_met_comes_as_the_nearest_with_what_is_missing():
    found = fit(Recipe.parse("gptq"), Budget(nbytes=300_000), EMBEDDED)
    assert level_of(found.recipe) == 1.25
    assert found.missing == found.nbytes - 300_000 > 0


def test_bits_and_bytes_hold_together():
    found = fit(Recipe.parse("gptq"), Budget(bits=3.5, nbytes=1_600_000), EMBEDDED)
    assert level_of(found.recipe) == 3.5
    found = fit(Recipe.parse("gptq"), Budget(bits=6.0, nbytes=750_000), EMBEDDED)
    assert found.nbytes <= 750_000


def test_a_floor_of_quality_takes_the_fewest_bits_that_reach_it():
    def divergence(recipe):
        return math.exp(-level_of(recipe))

    found = fit(Recipe.parse("gptq"), Budget(kld=math.exp(-3.2)), EMBEDDED, divergence)
    assert level_of(found.recipe) == pytest.approx(3.2, abs=0.01)
    assert found.strange == 0
    both = fit(Recipe.parse("gptq"), Budget(kld=math.exp(-3.2), bits=2.0), EMBEDDED, divergence)
    assert level_of(both.recipe) == 2.0
    assert both.strange == pytest.approx(math.exp(-2) - math.exp(-3.2))


def test_a_recipe_without_a_level_is_counted_as_it_is():
    found = fit(Recipe.parse("copyspec"), Budget(nbytes=1_000_000), EMBEDDED)
    assert found.missing == EMBEDDED.dense_bytes - 1_000_000
    with pytest.raises(OutOfReachError, match="add a method"):
        fit(Recipe.parse("copyspec"), Budget(bits=4.0), EMBEDDED)
