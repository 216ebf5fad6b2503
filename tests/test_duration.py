"""How long a run takes: by known runs, by counts worked out by hand, and near what was measured."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from backend import console, duration
from backend.dimensions import Dimensions
from backend.estimate import estimate
from backend.methods import catalogue, find
from backend.methods.anatomy import Anatomy
from backend.methods.base import RepairMethod, Text
from backend.recipes import Recipe
from backend.sources import ModelSource
from docs.benchmarks import compress

DEFAULT = ModelSource.parse("default")
SHIPPED = Path(__file__).parents[1] / "data" / "results" / "results"
NOTHING = pd.DataFrame({"model": [], "recipe": [], "family": [], "seconds": []})
TEXT = Text(tokens=1000, windows=10, step=100, samples=50)
LEARNING = ("ziplm", "m-fac", "cbq", "prunenet", "flatquant")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(duration, "cores", lambda: 2)


def llama(blocks, width, inner, vocabulary=0, heads=1):
    """Anatomy of a Llama without norms."""
    shapes = {"model.embed_tokens.weight": (vocabulary, width)} if vocabulary else {}
    for place in range(blocks):
        block = f"model.layers.{place}"
        shapes |= {f"{block}.self_attn.{one}_proj.weight": (width, width) for one in "qkvo"}
        shapes |= {f"{block}.mlp.{one}_proj.weight": (inner, width) for one in ("gate", "up")}
        shapes[f"{block}.mlp.down_proj.weight"] = (width, inner)
    config = {"model_type": "llama", "num_attention_heads": heads, "vocab_size": vocabulary}
    return Anatomy(shapes, config | {"tie_word_embeddings": True})


SEVEN = llama(32, 4096, 11008, 32000, 32)
"""A Llama of 7B parameters."""


def effort(text, anatomy):
    (method,) = Recipe.parse(text).stages
    return method.effort(anatomy, TEXT)


def test_ziplm_counts_weight_twice_and_inverse_once_for_each_unit():
    """A head of 4 columns, two neurons of one, and outputs of 4: (4 + 8) 4 and 2 (2 + 8) 2.

    A draw mends a third of them, columns^2 (columns / 3 + 4), and reads 8 of 10 windows.
    """
    found = effort("ziplm@13", llama(1, 4, 2))
    assert found.touched == 48 + 40
    mended = (16 * (4 / 3 + 4) + 4 * (2 / 3 + 4)) / 3
    assert found.multiplied == pytest.approx(20 * (mended + 800 * (4 * 16 + 3 * 8)))


def test_ziplm_at_11008_columns_goes_with_the_cube_of_the_width():
    """Each of 11,008 neurons: 121.2 M numbers of the inverse and 90.2 M of the weight."""
    neurons = 11008 * 11008 * (11008 + 2 * 4096)
    heads = 32 * 4096 * (4096 + 2 * 4096)
    assert effort("ziplm@13", SEVEN).touched == 32 * (neurons + heads)
    assert (
        effort("ziplm@13", llama(1, 8, 16)).touched > 7 * effort("ziplm@13", llama(1, 4, 8)).touched
    )


def test_m_fac_counts_the_products_of_gradients_and_a_way_back_for_each_block():
    """10 gradients by 10 for each of 88 numbers: 5 products, and half of one in each of 4 steps."""
    found = effort("m-fac@9", llama(1, 4, 2))
    assert found.multiplied == (5 + 4 / 2) * 100 * 88
    assert effort("m-fac(bits=9, pattern=2:4)", llama(1, 4, 2)).multiplied == 2.5 * 100 * 88
    # With twice the blocks each of twice as many ways back is through twice the model.
    recipe, once = Recipe.parse("m-fac@9"), 64 * 256 / (4e10 * 2)  # matrices over 1,024 wide
    for blocks in (8, 16):
        anatomy = llama(blocks, 1024, 2048)
        reading = duration.compressing(recipe, anatomy) - duration._treating(recipe, anatomy)
        assert reading == pytest.approx(once * (1 + 3 * blocks) * anatomy.numbers)


@pytest.mark.parametrize(("width", "times"), [(128, 1), (256, 1), (512, 2), (2048, 4)])
def test_text_meets_large_matrices_faster(width, times):
    """A number and token is a product: 10^10 a second and core of small ones, 4 times of wide."""
    anatomy = llama(2, width, width)
    products = 64 * 256 * anatomy.linear
    found = duration.compressing(Recipe.parse("wanda@9"), anatomy)
    found -= duration._treating(Recipe.parse("wanda@9"), anatomy)
    assert found == pytest.approx(products / (times * 1e10 * 2))


def test_cbq_counts_its_windows_steps_and_tokens():
    """31 windows of 2 of 32 blocks, 200 steps, three products a number and token of 100."""
    block = 4 * 4096**2 + 3 * 11008 * 4096
    found = effort("cbq@4", SEVEN)
    assert found.multiplied == pytest.approx(31 * 200 * 2 * block * 3 * 100)
    assert found.touched == pytest.approx(31 * 200 * 2 * block * 40)
    # 4 blocks in windows of 3 that share one: two windows, each three quarters of the matrices
    found = effort("cbq(bits=4, window=3, overlap=1, steps=10)", llama(4, 4, 2))
    assert found.multiplied == pytest.approx(2 * 10 * 3 * 88 * 3 * 100)


def test_prunenet_counts_a_gram_matrix_and_its_values_for_each_layer_and_episode():
    """Two neurons of 4 channels: 2 (2 4 + 2 4) of 21 spectra, 20 changes of 8 in 20 of them."""
    found = effort("prunenet@15", llama(1, 4, 2))
    assert (found.multiplied, found.touched) == (21 * 2 * (8 + 8), 20 * 20 * 8)


def test_perp_counts_the_whole_model_there_and_back():
    tuner = Recipe.parse("wanda@9 + perp(steps=7)").stages[1]
    assert tuner.effort(llama(1, 4, 2), TEXT).multiplied == 7 * 3 * 88 * 100


MEASURED = json.loads((Path(compress.__file__).with_suffix(".json")).read_text())
"""CPU seconds of methods on one layer and more."""


@pytest.mark.parametrize("key", [key for key in catalogue() if f"{key} on 4096x4096" in MEASURED])
def test_what_a_method_says_of_a_layer_is_within_three_times_the_measured_seconds(key):
    cls = find(key)
    method = cls() if issubclass(cls, RepairMethod) else cls().at(compress.BITS[cls.family()])
    told = method.effort(SimpleNamespace(linear=4096**2), duration.TEXT)
    seconds = told.multiplied / duration.MULTIPLIED + told.touched / duration.TOUCHED
    measured = MEASURED[f"{key} on 4096x4096"]["cpu_seconds"]
    assert 1 / 3 < (seconds + told.core_seconds) / measured < 3


@pytest.mark.parametrize(
    "recipe",
    ["ziplm@13", "m-fac@9", "cbq@4", "prunenet@13", "flatquant@4.5", "lq-lora@4", "db-llm@3"],
)
def test_what_takes_hours_at_7b_says_so(recipe):
    assert duration.compressing(Recipe.parse(recipe), SEVEN) > 3600
    assert duration.compressing(Recipe.parse("rtn@4"), SEVEN) < 300


def shipped():
    """Recipe, seconds, and those of compressing alone, of what was run on the embedded model."""
    for path in sorted(SHIPPED.iterdir()):
        run = json.loads(path.read_text())
        if run["model"]["name"] == "default":
            made = [one["value"] for one in run["readings"] if one["name"] == "compress_s"]
            yield run["recipe"], run["seconds"], made


@pytest.mark.parametrize("key", LEARNING)
def test_counted_seconds_are_within_three_times_the_measured_ones(key):
    found = [one for one in shipped() if duration._methods(one[0]) == (key,)]
    assert found, "runs of it are shipped"
    ratios = [
        estimate(Recipe.parse(recipe), DEFAULT, NOTHING).seconds / seconds
        for recipe, seconds, _ in found
    ]
    assert 1 / 3 < statistics.median(ratios) < 3


@pytest.mark.parametrize("key", ["ziplm", "m-fac", "cbq", "gptq", "wanda"])
def test_counted_seconds_of_compressing_alone_are_too(key):
    anatomy = Dimensions.of(DEFAULT).anatomy
    found = [one for one in shipped() if duration._methods(one[0]) == (key,)]
    (loading,) = (made[0] for recipe, _, made in shipped() if recipe == "dense")
    ratios = [
        duration.compressing(Recipe.parse(recipe), anatomy) / (made[0] - loading)
        for recipe, _, made in found
    ]
    assert 1 / 3 < statistics.median(ratios) < 3


def known(*rows):
    return pd.DataFrame(
        [dict(zip(("recipe", "family", "seconds"), row, strict=True)) for row in rows]
    ).assign(model="default")


def test_seconds_come_from_runs_of_the_same_methods_before_those_of_the_family():
    runs = known(("rtn@3", "quantise", 3), ("rtn@8", "quantise", 5), ("gptq@3", "quantise", 40))
    found = estimate(Recipe.parse("rtn@4"), DEFAULT, runs)
    assert (found.seconds, found.basis) == (4, "2 runs of these methods and model")
    own = 1e-6 * Dimensions.of(DEFAULT).anatomy.linear / 2
    found = estimate(Recipe.parse("spqr@4"), DEFAULT, runs)
    assert found.seconds == pytest.approx(5 + (0.4 - 0.006) * own)
    assert found.basis == "3 runs of this family and model"
    found = estimate(Recipe.parse("wanda@9"), DEFAULT, runs)
    assert found.seconds == pytest.approx(5 + (0.06 - 0.006) * own)
    assert found.basis == "3 runs of this model"


def test_what_a_method_says_of_itself_is_added_to_runs_of_others_and_scales_those_of_its_own():
    others = known(("rtn@3", "quantise", 9))
    anatomy = Dimensions.of(DEFAULT).anatomy
    own = duration._treating(Recipe.parse("cbq@4"), anatomy)
    found = estimate(Recipe.parse("cbq@4"), DEFAULT, others)
    rounding = duration._treating(Recipe.parse("rtn@3"), anatomy)
    assert found.seconds == pytest.approx(9 - rounding + own)
    runs = known(("cbq@3", "quantise", 58), ("rtn@3", "quantise", 9))
    assert estimate(Recipe.parse("cbq@4"), DEFAULT, runs).seconds == 58
    # Of 58 seconds 8 are not the method's own; ten times the steps are ten times the rest.
    found = estimate(Recipe.parse("cbq(bits=4, steps=2000)"), DEFAULT, runs)
    assert found.seconds == pytest.approx(8 + 10 * 50)


def test_dividing_a_budget_takes_as_long_more_as_it_took_in_known_runs():
    runs = known(
        ("rtn@3", "quantise", 4),
        ("gptq@3", "quantise", 9),
        ("rtn@3 by evopress", "quantise", 30),
        ("rtn@4 by evopress(generations=5)", "quantise", 14),
    )
    found = estimate(Recipe.parse("gptq@3 by evopress"), DEFAULT, runs)
    assert found.seconds == pytest.approx(9 + (26 + 10) / 2)
    assert found.basis == "1 runs of these methods and model, and 2 divided alike"
    known_one = estimate(Recipe.parse("rtn@2 by evopress"), DEFAULT, runs)
    assert known_one.basis == "2 runs of these methods and model"
    other = estimate(Recipe.parse("gptq@3 by integer-program"), DEFAULT, runs)
    assert other.basis == "4 runs of this family and model"


@dataclass
class Waiting:
    """What the command line asks of a job."""

    spec: dict


def test_the_command_line_foretells_what_takes_an_hour_or_more():
    expected = {"predicted": {"predicted_seconds": [40_000.0, None, None]}}
    assert console.foretold(Waiting(expected)) == "about 11.1 h to be expected"
    expected["predicted"]["predicted_seconds"][0] = 3599.0
    assert console.foretold(Waiting(expected)) == ""
    assert console.foretold(Waiting({"predicted": {}})) == ""


def test_methods_are_told_by_their_keys_and_the_allocator():
    text = "sparsegpt(pattern=2:4) + kv-int(bits=3, keys=by token) by evopress"
    assert duration._methods(text) == ("sparsegpt", "kv-int", "evopress")


def test_the_recipes_of_known_runs_are_read_once_however_often_is_asked():
    """An estimate follows every key that is pressed in a form, and known runs are thousands."""
    texts = [f"rtn@{2 + place / 1000}" for place in range(300)]
    known = pd.DataFrame(
        {"model": "default", "recipe": texts, "family": "quantise", "seconds": 9.0}
    )
    anatomy = Dimensions.of(DEFAULT).anatomy
    duration.expected(Recipe.parse("gptq@3"), DEFAULT, anatomy, known)
    before = [one.cache_info().misses for one in (duration._methods, duration._parsed)]
    assert duration.expected(Recipe.parse("rtn@7"), DEFAULT, anatomy, known)[1].startswith("100 ")
    after = [one.cache_info().misses for one in (duration._methods, duration._parsed)]
    assert after == [before[0] + 1, before[1]]
