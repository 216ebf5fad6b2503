"""What every method of the catalogue promises; names no method."""

import dataclasses
import functools
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backend import formats
from backend.caches.attention import Queries
from backend.caches.base import DenseLayerCache
from backend.calibrate.statistics import InputStatistics
from backend.errors import OutOfReachError, SettingError
from backend.methods import catalogue, describe, find
from backend.methods.base import (
    CacheMethod,
    DecodeMethod,
    EncodeMethod,
    LayerMethod,
    Leveled,
    ModelMethod,
    Needs,
    RepairMethod,
    StackMethod,
    TuneMethod,
)
from backend.recipes import Recipe
from tests.looking import made

ROOT = Path(__file__).parents[1]
METHODS = catalogue()
LAYER = [key for key, cls in METHODS.items() if issubclass(cls, LayerMethod)]
REPAIR = [key for key, cls in METHODS.items() if issubclass(cls, RepairMethod)]
ENCODE = [key for key, cls in METHODS.items() if issubclass(cls, EncodeMethod)]
CACHE = [key for key, cls in METHODS.items() if issubclass(cls, CacheMethod)]
LEVELED = [key for key, cls in METHODS.items() if issubclass(cls, Leveled)]
FLOORED = [key for key in LAYER if METHODS[key].family() in ("prune", "quantise", "factorise")]
SHAPES = [(64, 128), (16, 64), (33, 172), (48, 40)]  # 16 of 64: keys of a grouped query


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs_of(columns, tokens=512, seed=5):
    """Correlated activations, some columns much louder than others."""
    mix = normal(columns, columns, seed=seed) / columns**0.5 + 0.3
    loud = torch.exp(normal(columns, seed=seed + 1))
    return normal(tokens, columns, seed=seed + 2) @ mix * loud


def statistics_of(inputs, needs=Needs.HESSIAN | Needs.SAMPLES):
    statistics = InputStatistics(inputs.shape[1], needs)
    statistics.add(inputs)
    return statistics


@functools.cache
def case(rows, columns):
    """A weight whose singular values fall, as those of trained ones do, and its inputs."""
    falling = 1 / torch.arange(1, columns + 1) ** 0.5
    weight = normal(rows, columns) * falling @ normal(columns, columns, seed=1)
    return weight, statistics_of(inputs_of(columns))


def error(weight, held, statistics):
    """Mean squared change of the outputs over the calibration inputs."""
    change = (weight - held.dense()).double()
    return float(((change @ statistics.hessian.double()) * change).sum())


@functools.cache  # asked by several tests of each method and matrix
def least(cls, weight, statistics):
    """The fewest bits, in quarters, at which a method holds this matrix."""
    level = next(field for field in dataclasses.fields(cls) if field.name == cls.level)
    bits = -(-level.metadata["low"] * 4 // 1) / 4
    while bits <= 16:
        method = cls().at(bits)
        try:
            method.fit(weight, statistics)
        except OutOfReachError:
            with pytest.raises(OutOfReachError):
                method.outline(*weight.shape)
            bits += 0.25
        else:
            method.outline(*weight.shape)  # said beforehand: it can be held
            return bits
    raise AssertionError("No budget up to 16 bits is within reach.")


@functools.cache
def fitted(cls, bits, shape):
    """What a method makes of the matrix of this shape; nobody may change it."""
    return cls().at(bits).fit(*case(*shape))


def budgets(cls, weight, statistics):
    low = least(cls, weight, statistics)
    level = next(field for field in dataclasses.fields(cls) if field.name == cls.level)
    high = level.metadata["high"]
    return [low, low + (high - low) / 3, low + 2 * (high - low) / 3]


def settings_of(cls):
    """The defaults, and every other position of each setting that has a list of them."""
    yield cls()
    for field in dataclasses.fields(cls):
        for choice in field.metadata["choices"] or ():
            if choice != field.default:
                yield dataclasses.replace(cls(), **{field.name: choice})


VARIANTS = [
    pytest.param(method, id=f"{key}-{index}")
    for key in LAYER
    for index, method in enumerate(settings_of(METHODS[key]))
]


CACHES = [
    pytest.param(method, id=f"{key}-{index}")
    for key in CACHE
    for index, method in enumerate(settings_of(METHODS[key]))
]


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
        held = fitted(cls, bits, shape)
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


@pytest.mark.parametrize("method", VARIANTS)
def test_positions_of_settings_keep_the_budget_and_the_shape(method):
    weight, statistics = case(33, 172)
    held = method.fit(weight, statistics)
    assert held.shape == weight.shape
    assert held.bits <= method.settings()[method.level]
    assert torch.isfinite(held.dense()).all()


@pytest.mark.parametrize("key", LAYER)
def test_what_is_held_yields_a_format_that_the_method_declares(key):
    cls, (weight, statistics) = METHODS[key], case(64, 128)
    for bits in budgets(cls, weight, statistics):
        assert fitted(cls, bits, (64, 128)).key in cls.yields


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
@pytest.mark.parametrize("key", LAYER)
def test_a_larger_budget_is_never_worse(key, shape):
    cls, (weight, statistics) = METHODS[key], case(*shape)
    low = least(cls, weight, statistics)
    high = next(f for f in dataclasses.fields(cls) if f.name == cls.level).metadata["high"]
    ladder = [low + (high - low) * step / 5 for step in range(6)]
    errors = [error(weight, fitted(cls, bits, shape), statistics) for bits in ladder]
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


def evenly(weight, width):
    """Evenly spaced values between the ends of groups of 128."""
    rows, _ = weight.shape
    groups = weight.view(rows, -1, 128)
    low, high = groups.amin(-1), groups.amax(-1)
    scale = ((high - low) / (2**width - 1)).to(torch.bfloat16).float()
    offset = (low + 2 ** (width - 1) * scale).to(torch.bfloat16).float()
    codes = (groups - offset[..., None]) / scale[..., None] + 2 ** (width - 1)
    return formats.IntegerGroups.pack(
        codes.round().clamp(0, 2**width - 1).flatten(1), scale, offset, bits=width, group_size=128
    )


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
    held = fitted(cls, max(bits, least(cls, weight, statistics)), (64, 128))
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
    held = METHODS[key]().fit(weight, statistics)
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


@pytest.mark.parametrize("method", VARIANTS)
def test_fitting_twice_gives_the_same_and_leaves_its_inputs_as_they_were(method):
    for weight, inputs in (
        (normal(33, 172), inputs_of(172)),
        (normal(172, 33).T, inputs_of(172)),  # a view whose transpose is contiguous
        (normal(1, 64), inputs_of(64)),
    ):
        statistics = statistics_of(inputs)
        before = weight.clone(), statistics.products.clone(), statistics.count
        try:
            first = method.fit(weight, statistics)
        except OutOfReachError:
            assert weight.shape[0] == 1
            continue
        second = method.fit(weight, statistics)
        fresh = method.fit(before[0], statistics_of(inputs))
        assert torch.equal(weight, before[0])
        assert torch.equal(statistics.products, before[1])
        assert statistics.count == before[2]
        for again in (second, fresh):
            assert again.header() == first.header()
            assert torch.equal(again.dense(), first.dense())


@functools.cache
def hard_cases():
    weight = normal(32, 64)
    inputs = inputs_of(64)
    dead = inputs.clone()
    dead[:, ::3] = 0
    constant = inputs.clone()
    constant[:, 5] = 2.0
    constant[:, 6] = 2.0
    same = weight.clone()
    same[:, 7] = 1.5
    indefinite = statistics_of(inputs)
    indefinite.products -= 0.1 * indefinite.products.diagonal().mean() * torch.eye(64)
    return {
        "three tokens for 64 columns": (weight, statistics_of(inputs[:3])),
        "dead columns": (weight, statistics_of(dead)),
        "all columns dead": (weight, statistics_of(torch.zeros(8, 64))),
        "constant columns": (same, statistics_of(constant)),
        "a Hessian that is not definite": (weight, indefinite),
        "a zero matrix": (torch.zeros(32, 64), statistics_of(inputs)),
        "one value everywhere": (torch.full((32, 64), -0.25), statistics_of(inputs)),
        "tiny inputs": (weight, statistics_of(1e-6 * inputs)),
        "huge inputs": (weight, statistics_of(1e6 * inputs)),
        "tiny weights": (1e-9 * weight, statistics_of(inputs)),
        "one huge weight": (weight.index_fill(1, torch.tensor(3), 1e4), statistics_of(inputs)),
        "nothing seen": (weight, InputStatistics(64, Needs.HESSIAN)),
    }


@pytest.mark.faults
@pytest.mark.parametrize("name", hard_cases())
@pytest.mark.parametrize("key", LAYER)
def test_a_hard_case_gives_finite_weights_within_the_budget(key, name):
    weight, statistics = hard_cases()[name]
    for method in settings_of(METHODS[key]):
        held = method.fit(weight, statistics)
        assert torch.isfinite(held.dense()).all()
        assert held.bits <= method.settings()[method.level]
        ratio = held.dense().abs().max() / weight.abs().max().clamp(min=1e-6)
        assert ratio < 100


@pytest.mark.parametrize("key", LAYER)
def test_what_a_method_needs_suffices(key):
    cls = METHODS[key]
    statistics = statistics_of(inputs_of(64), cls.needs)
    held = cls().fit(normal(32, 64), statistics).dense()
    more = cls().fit(normal(32, 64), statistics_of(inputs_of(64))).dense()
    assert (held - more).norm() <= 1e-4 * more.norm()  # squares are added in another order


@pytest.mark.parametrize("key", LAYER)
def test_weights_of_columns_that_are_never_fed_cost_no_quality(key):
    """Whatever stands in a dead column, the outputs are as near as with zeros there."""
    cls = METHODS[key]
    if cls.needs is Needs.NOTHING:
        with pytest.raises(RuntimeError):
            statistics_of(inputs_of(64), cls.needs).mean_squares  # noqa: B018
        return
    inputs = inputs_of(64)
    inputs[:, ::2] = 0
    weight = normal(32, 64)
    empty = weight.clone()
    empty[:, ::2] = 0
    statistics = statistics_of(inputs)
    full, free = (error(part, cls().fit(part, statistics), statistics) for part in (weight, empty))
    assert full <= 1.05 * free + 1e-6


# Repairs and encoders


def repaired():
    """A weight, what an earlier stage left of it, and its statistics, for formats of all kinds."""
    weight, statistics = case(64, 128)
    mask = weight.abs() > weight.abs().median()
    yield weight, evenly(weight, 2), statistics
    yield weight, formats.BitmaskSparse.pack(weight, mask), statistics
    yield weight, formats.LowRank.pack(normal(64, 4), 0.1 * normal(4, 128)), statistics


@pytest.mark.parametrize("key", REPAIR)
def test_a_repair_adds_at_most_its_bits_and_more_bits_mend_more(key):
    for weight, held, statistics in repaired():
        before = error(weight, held, statistics)
        errors = [before]
        for bits in (0.5, 1.0, 2.0, 4.0):
            mended = METHODS[key]().at(bits).mend(weight, held, statistics)
            assert mended.key in METHODS[key].yields
            assert held.bits < mended.bits <= held.bits + bits
            errors.append(error(weight, mended, statistics))
        assert all(after <= 1.001 * early for early, after in itertools.pairwise(errors))
        assert errors[-1] < 0.5 * before


@pytest.mark.parametrize("key", REPAIR)
def test_a_repair_is_finite_in_hard_cases_and_saved_whole(key):
    for weight, statistics in hard_cases().values():
        held = METHODS["rtn"](4.0, group_size=32).fit(weight, statistics)
        mended = METHODS[key]().mend(weight, held, statistics)
        assert torch.isfinite(mended.dense()).all()
        twin = formats.from_header(json.loads(json.dumps(mended.header())))
        twin.load_state_dict({name: part.clone() for name, part in mended.state_dict().items()})
        assert torch.equal(twin.dense(), mended.dense())


@pytest.mark.parametrize("key", ENCODE)
def test_what_an_encoder_holds_is_smaller_and_the_same_to_the_bit(key):
    for shape in SHAPES:
        values = (0.05 * normal(*shape)).to(torch.bfloat16)
        held = METHODS[key]().encode(values)
        if held is None:
            assert values.numel() < 4096, "too small to pay"
            continue
        assert held.nbytes < values.nbytes
        twin = formats.from_header(json.loads(json.dumps(held.header())))
        twin.load_state_dict({name: part.clone() for name, part in held.state_dict().items()})
        assert torch.equal(
            twin.dense().to(torch.bfloat16).view(torch.int16), values.view(torch.int16)
        )
    anything = torch.randint(-(2**15), 2**15, (32, 64), dtype=torch.int16).view(torch.bfloat16)
    assert METHODS[key]().encode(anything) is None, "random bits take what they take"


# Keys and values


def states_of(tokens, heads, head_dim, dtype=torch.bfloat16, batch=1):
    loud = torch.exp(normal(head_dim, seed=8))
    keys = normal(batch, heads, tokens, head_dim, seed=1) * loud
    return keys.to(dtype), normal(batch, heads, tokens, head_dim, seed=2).to(dtype)


def ask(cache, keys, values, start=0, seed=9):
    """What queries for new tokens, two to each key-value head, find in a cache."""
    count = keys.shape[2]
    states = normal(keys.shape[0], 2 * keys.shape[1], *keys.shape[2:], seed=seed).to(keys.dtype)
    queries = Queries(states, keys.shape[3] ** -0.5, torch.arange(start, start + count))
    return cache.attend(queries, keys, values)


def codec_least(method, heads, head_dim):
    bits = 2.0
    while True:
        try:
            method.at(bits).codec(heads, head_dim)
        except OutOfReachError:
            bits += 0.25
        else:
            return bits


def fitting(method, heads, head_dim):
    """A codec of the method's own budget, or of the least that heads of this size allow."""
    least = codec_least(method, heads, head_dim)
    return made(method.at(max(least, method.settings()[method.level])), heads, head_dim)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("heads", "head_dim"), [(2, 64), (1, 20), (4, 36)])
@pytest.mark.parametrize("method", CACHES)
def test_a_cache_grows_by_at_most_its_budget_for_each_token(method, heads, head_dim, dtype):
    low = codec_least(method, heads, head_dim)
    for bits in (low, low + 1.5, low + 3):
        codec = made(method.at(bits), heads, head_dim)
        sizes, cache = [], codec.layer(0)
        full = codec.context or 512
        for tokens in (full, full + 512):
            # Of a long context a piece at a time: all at once, attention takes their square.
            while cache.length < tokens:
                piece = min(512, tokens - cache.length)
                ask(cache, *states_of(piece, heads, head_dim, dtype), start=cache.length)
            assert cache.length == tokens
            assert cache.nbytes == sum(tensor.nbytes for tensor in cache.tensors())
            sizes.append(cache.nbytes)
        found = 8 * (sizes[1] - sizes[0]) / (512 * 2 * heads * head_dim)
        assert found == pytest.approx(codec.bits(heads, head_dim), abs=1e-9)
        assert found <= bits + 1e-9


BOUNDED = [method for method in CACHES if method.values[0].at(16).codec(2, 64).context is not None]


@pytest.mark.parametrize("method", BOUNDED)
def test_a_cache_that_stops_growing_takes_at_most_its_budget_at_its_context(method):
    for bits in (2.5, 5.0, 8.0):
        codec = made(method.at(bits), 2, 64)
        cache = codec.layer(0)
        for start in range(0, codec.context, 8):
            states = states_of(8, 2, 64)
            ask(cache, *states, start=start)
            assert 8 * cache.nbytes <= bits * codec.context * 2 * 2 * 64


@pytest.mark.parametrize("key", CACHE)
def test_a_larger_budget_of_a_cache_is_never_worse(key):
    cls = METHODS[key]
    low = codec_least(cls(), 2, 64)
    keys, values = states_of(256, 2, 64)
    exact = DenseLayerCache()
    ask(exact, keys, values)
    expected = ask(exact, *states_of(1, 2, 64), start=256, seed=3).float()
    errors = []
    for step in range(6):
        cache = made(cls().at(low + step * (10 - low) / 5), 2, 64).layer(0)
        ask(cache, keys, values)
        found = ask(cache, *states_of(1, 2, 64), start=256, seed=3).float()
        errors.append(float((found - expected).square().mean() / expected.square().mean()))
    assert all(after <= 1.02 * before + 1e-6 for before, after in itertools.pairwise(errors))
    assert errors[-1] < errors[0]


@pytest.mark.parametrize("method", CACHES)
def test_tokens_fed_at_once_are_held_as_tokens_fed_one_by_one(method):
    """So that the text does not depend on how it was read; probes alone may look further."""
    keys, values = states_of(150, 2, 32, batch=2)
    whole, slow = (fitting(method, 2, 32).layer(0) for _ in range(2))
    ask(whole, keys, values)
    for place in range(150):
        ask(slow, keys[:, :, place : place + 1], values[:, :, place : place + 1], start=place)
    assert (whole.length, whole.croppable) == (slow.length, slow.croppable)
    assert whole.nbytes == slow.nbytes


@pytest.mark.parametrize("method", CACHES)
def test_drafts_that_a_cache_allows_leave_no_trace(method):
    """Appended up to `croppable`, refused in part, picked from a tree: as if never fed."""
    keys, values = states_of(100, 2, 32)
    more = states_of(40, 2, 32)
    plain, drafted = (fitting(method, 2, 32).layer(0) for _ in range(2))
    for cache in (plain, drafted):
        ask(cache, keys, values)
    room = min(drafted.croppable, 5)
    assert room > 2
    kept = [0, 2]
    ask(drafted, *(part[:, :, :room] for part in more), start=100)
    drafted.pick(100, kept)
    ask(plain, *(part[:, :, :room][:, :, kept] for part in more), start=100)
    assert drafted.length == plain.length == 102
    states = states_of(60, 2, 32)
    found = [ask(cache, *states, start=102) for cache in (plain, drafted)]
    assert (found[0] - found[1]).abs().max() <= 0.02 * found[0].abs().max()
    assert drafted.nbytes == plain.nbytes


@pytest.mark.parametrize("method", CACHES)
def test_a_cache_answers_a_batch_as_its_sequences_alone(method):
    keys, values = states_of(120, 2, 32, torch.float32, batch=3)
    together = fitting(method, 2, 32).layer(0)
    queries = normal(3, 4, 120, 32, seed=4)
    own = []
    for row in range(3):
        alone = fitting(method, 2, 32).layer(0)
        asked = Queries(queries[row : row + 1], 0.2, torch.arange(120))
        alone.attend(asked, keys[row : row + 1], values[row : row + 1])
        asked = Queries(queries[row : row + 1, :, :1], 0.2, torch.tensor([120]))
        own.append(alone.attend(asked, keys[row : row + 1, :, :1], values[row : row + 1, :, :1]))
    together.attend(Queries(queries, 0.2, torch.arange(120)), keys, values)
    asked = Queries(queries[:, :, :1], 0.2, torch.tensor([120]))
    found = together.attend(asked, keys[:, :, :1], values[:, :, :1])
    assert torch.allclose(found, torch.cat(own), atol=1e-4)


def test_reading_the_catalogue_imports_no_torch():
    program = (
        "import sys; from backend import methods, recipes\n"
        "for cls in methods.catalogue().values(): methods.describe(cls)\n"
        "recipes.Recipe.parse(' + '.join(list(methods.catalogue())[:1])).to_json()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'too much'"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_every_port_has_a_method():
    ports = (LayerMethod, RepairMethod, TuneMethod, EncodeMethod, ModelMethod)
    ports += (CacheMethod, DecodeMethod)
    for port in ports:
        assert any(issubclass(cls, port) for cls in METHODS.values())
    for cls in METHODS.values():
        assert sum(issubclass(cls, port) for port in ports) == 1
