"""What every method of the catalogue promises; names no method."""

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backend import formats
from backend.errors import OutOfReachError, SettingError
from backend.methods import describe, find
from backend.methods.base import (
    CacheMethod,
    DecodeMethod,
    EncodeMethod,
    LayerMethod,
    ModelMethod,
    Needs,
    PrefillMethod,
    RepairMethod,
    StackMethod,
    TableMethod,
    TuneMethod,
)
from backend.recipes import Recipe
from tests.compressed import brief
from tests.contract import (
    FLOORED,
    LAYER,
    LEVELED,
    METHODS,
    SHAPES,
    budgets,
    case,
    error,
    evenly,
    fitted,
    inputs_of,
    least,
    normal,
    statistics_of,
)

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("key", METHODS)
def test_a_method_says_what_it_is(key):
    cls = METHODS[key]
    path = ROOT / Path(*cls.__module__.split(".")).with_suffix(".py")
    assert (key, cls.family()) == (path.stem.replace("_", "-"), path.parent.name)
    assert find(key) is cls
    assert cls.summary().endswith(".")
    assert "." not in cls.summary()[:-1]
    assert cls.paper
    assert cls.claim.endswith(".")
    assert cls.version >= 1
    assert json.loads(json.dumps(describe(cls)))["key"] == key
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen


@pytest.mark.parametrize("key", METHODS)
def test_every_setting_has_help_and_a_range_or_positions_that_hold_its_default(key):
    cls = METHODS[key]
    for field in dataclasses.fields(cls):
        about = field.metadata
        assert about["help"].endswith(".")
        if about["recipe"]:
            assert Recipe.parse(field.default).layer_methods
        elif about["choices"] is None:
            assert about["low"] <= field.default <= about["high"]
        else:
            assert field.default in about["choices"]
    assert cls() == cls(**cls().settings())


@pytest.mark.parametrize("key", METHODS)
def test_a_setting_out_of_range_is_refused_in_a_sentence(key):
    cls = METHODS[key]
    for field in dataclasses.fields(cls):
        about = field.metadata
        wrong = ["x" * 501, float("nan")]
        if about["choices"] is None and not about["recipe"]:
            wrong += [about["low"] - 1, about["high"] + 1, float("inf"), None, True]
        if isinstance(field.default, int) and about["choices"] is None:
            wrong.append(about["low"] + 0.5)
        for value in wrong:
            with pytest.raises(SettingError, match=f"{key}: {field.name} .*\\.$"):
                cls(**{field.name: value})


@pytest.mark.parametrize("key", LEVELED)
def test_a_budget_below_reach_is_refused_by_its_reach(key):
    cls = METHODS[key]
    low = next(field for field in dataclasses.fields(cls) if field.name == cls.level)
    reach = f"{low.metadata['low']:g}"
    for bits in (low.metadata["low"] - 0.01, 0.0, -1.0, float("nan")):
        with pytest.raises(OutOfReachError, match=f"{reach}.*{key}|{key}.*{reach}"):
            cls().at(bits)


@pytest.mark.parametrize("key", LEVELED)
def test_a_budget_above_reach_gives_all_there_is(key):
    cls = METHODS[key]
    high = next(field for field in dataclasses.fields(cls) if field.name == cls.level)
    assert cls().at(1000).settings()[cls.level] == high.metadata["high"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("key", LAYER)
def test_a_matrix_takes_at_most_its_budget(key, shape):
    cls, (weight, statistics) = METHODS[key], case(*shape)
    for bits in budgets(cls, weight, statistics):
        held = fitted(brief(cls().at(bits)), shape)
        assert held.shape == shape
        assert held.bits <= bits + 1e-9
        outline = cls().at(bits).outline(*shape)
        said = outline.nbytes + sum(2 * rows * columns for rows, columns in outline.leaves)
        assert said == held.nbytes if outline.exact else said >= held.nbytes
        assert 8 * sum(buffer.nbytes for buffer in held.buffers()) == held.nbytes * 8


@pytest.mark.parametrize("key", LAYER)
def test_a_matrix_too_small_for_the_budget_is_refused_by_its_reach(key):
    cls = METHODS[key]
    weight, statistics = normal(3, 4), statistics_of(inputs_of(4))
    low = next(field for field in dataclasses.fields(cls) if field.name == cls.level)
    lowest = low.metadata["low"]
    try:
        held = cls().at(lowest).fit(weight, statistics)
    except OutOfReachError as error:
        refusal = str(error)
    else:
        assert held.bits <= lowest
        return
    assert "3 x 4" in refusal
    assert f"not {lowest:g}" in refusal


@pytest.mark.parametrize("key", LAYER)
def test_what_is_held_yields_a_format_that_the_method_declares(key):
    cls, (weight, statistics) = METHODS[key], case(64, 128)
    for bits in budgets(cls, weight, statistics):
        assert fitted(brief(cls().at(bits)), (64, 128)).key in cls.yields


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
@pytest.mark.parametrize("key", LAYER)
def test_a_larger_budget_is_never_worse(key, shape):
    cls, (weight, statistics) = METHODS[key], case(*shape)
    low = least(cls, weight, statistics)
    high = next(f for f in dataclasses.fields(cls) if f.name == cls.level).metadata["high"]
    ladder = [low + (high - low) * step / 5 for step in range(6)]
    errors = [error(weight, fitted(cls().at(bits), shape), statistics) for bits in ladder]
    whole = error(weight, formats.Dense.pack(torch.zeros_like(weight)), statistics)
    for before, after in itertools.pairwise(errors):
        assert after <= 1.02 * before + 1e-5 * whole


def random_mask(weight, held):
    """As many weights kept as the bytes hold, any of them, behind the same kind of mask."""
    kept = (held.nbytes - weight.shape[0] * -(-weight.shape[1] // 8)) // 2
    order = torch.rand(weight.numel(), generator=torch.Generator().manual_seed(3)).argsort()
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[:kept]] = True
    return formats.BitmaskSparse.pack(weight, mask.view(weight.shape))


def rounded(weight, held):
    """Evenly spaced values no finer than the bytes hold, the first rows a bit finer to fill up."""
    rows, columns = weight.shape
    spare = held.nbytes / rows - 4 * columns / 128
    width = max(w for w in range(1, 9) if columns * w / 8 <= spare)
    finer = int((rows * spare - rows * columns * width / 8 - -(-rows // 8)) * 8 / columns)
    if width == 8 or finer < 1:
        return evenly(weight, width)
    mask = torch.arange(rows) < finer
    parts = evenly(weight[:finer], width + 1), evenly(weight[finer:], width)
    return formats.Rows.pack(mask, *parts)


def projected(weight, held):
    """The part of a weight in a random space of outputs, as thin as the bytes hold."""
    rank = held.nbytes // (2 * sum(weight.shape))
    directions = torch.linalg.qr(normal(weight.shape[0], rank, seed=4)).Q
    return formats.LowRank.pack(directions, directions.T @ weight)


FLOORS = {"prune": random_mask, "quantise": rounded, "factorise": projected}


@pytest.mark.parametrize("bits", [2.25, 3.25, 4.25, 8.25])
@pytest.mark.parametrize("key", FLOORED)
def test_a_method_beats_its_familys_naive_floor_at_equal_bytes(key, bits):
    cls, (weight, statistics) = METHODS[key], case(64, 128)
    if issubclass(cls, StackMethod):
        bits = min(bits, 3.25)  # one-bit blocks are for small budgets: each leaves a third
    held = fitted(cls().at(max(bits, least(cls, weight, statistics))), (64, 128))
    floor = FLOORS[cls.family()](weight, held)
    assert floor.nbytes <= held.nbytes
    assert floor.nbytes > 0.9 * held.nbytes
    own, naive = (error(weight, part, statistics) for part in (held, floor))
    if cls.family() == "quantise" and cls.needs is Needs.NOTHING:
        assert own <= 1.02 * naive, "the floor itself, and what looks at weights alone"
    else:
        assert own < 0.98 * naive


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("key", LAYER)
def test_what_is_saved_is_all_that_is_needed(key, shape):
    weight, statistics = case(*shape)
    held = brief(METHODS[key]()).fit(weight, statistics)
    activation = normal(3, shape[1], seed=9)
    expected, matrix = held.multiply(activation), held.dense()
    saved = {name: tensor.clone() for name, tensor in held.state_dict().items()}
    header = json.loads(json.dumps(held.header()))
    for buffer in held.buffers():
        buffer.zero_()
    twin = formats.from_header(header)
    twin.load_state_dict(saved)
    assert torch.equal(twin.dense(), matrix)
    assert torch.equal(twin.multiply(activation), expected)


def test_reading_the_catalogue_imports_no_torch():
    program = (
        "import sys; from backend import methods, recipes\n"
        "for cls in methods.catalogue().values(): methods.describe(cls)\n"
        "recipes.Recipe.parse(' + '.join(list(methods.catalogue())[:1])).to_json()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'too much'"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_every_port_has_a_method():
    ports = (LayerMethod, RepairMethod, TuneMethod, TableMethod, EncodeMethod, ModelMethod)
    ports += (CacheMethod, PrefillMethod, DecodeMethod)
    for port in ports:
        assert any(issubclass(cls, port) for cls in METHODS.values())
    for cls in METHODS.values():
        assert sum(issubclass(cls, port) for port in ports) == 1
