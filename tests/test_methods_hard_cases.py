"""Methods on hard matrices, and twice on the same; repairs and encoders. Names no method."""

import functools
import itertools
import json

import pytest
import torch

from backend import formats
from backend.calibrate.statistics import InputStatistics
from backend.errors import OutOfReachError
from backend.methods.base import (
    Needs,
)
from tests.compressed import brief
from tests.contract import (
    ENCODE,
    LAYER,
    METHODS,
    REPAIR,
    SHAPES,
    VARIANTS,
    case,
    error,
    evenly,
    inputs_of,
    normal,
    settings_of,
    statistics_of,
)


@pytest.mark.parametrize("method", VARIANTS)
def test_positions_of_settings_keep_budget_and_shape_and_fit_the_same_again(method):
    """What is fitted is finite, and once more the same, and inputs stay as they were."""
    for weight, inputs in (
        (case(33, 172)[0], inputs_of(172)),
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
        assert first.shape == weight.shape
        assert first.bits <= method.settings()[method.level]
        assert torch.isfinite(first.dense()).all()
        second = method.fit(weight, statistics)
        assert torch.equal(weight, before[0])
        assert torch.equal(statistics.products, before[1])
        assert statistics.count == before[2]
        fresh = method.fit(before[0], statistics_of(inputs))
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
    """At its own settings, and with fewer steps at every other position of each."""
    weight, statistics = hard_cases()[name]
    own, *others = settings_of(METHODS[key])
    for method in (own, *map(brief, others)):
        held = method.fit(weight, statistics)
        assert torch.isfinite(held.dense()).all()
        assert held.bits <= method.settings()[method.level]
        ratio = held.dense().abs().max() / weight.abs().max().clamp(min=1e-6)
        assert ratio < 100


@pytest.mark.parametrize("key", LAYER)
def test_what_a_method_needs_suffices(key):
    cls = METHODS[key]
    statistics = statistics_of(inputs_of(64), cls.needs)
    method = brief(cls())
    held = method.fit(normal(32, 64), statistics).dense()
    more = method.fit(normal(32, 64), statistics_of(inputs_of(64))).dense()
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
