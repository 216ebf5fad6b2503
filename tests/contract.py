"""What methods are tried on: all of the catalogue, matrices, their inputs and budgets."""

import dataclasses
import functools

import pytest
import torch

from backend import formats
from backend.calibrate.statistics import InputStatistics
from backend.errors import OutOfReachError
from backend.methods import catalogue
from backend.methods.base import (
    CacheMethod,
    EncodeMethod,
    LayerMethod,
    Leveled,
    Needs,
    RepairMethod,
)
from tests.compressed import brief

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
        method = brief(cls().at(bits))
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
def fitted(method, shape):
    """What a method makes of the matrix of this shape; nobody may change it."""
    return method.fit(*case(*shape))


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
    pytest.param(brief(method), id=f"{key}-{index}")
    for key in LAYER
    for index, method in enumerate(settings_of(METHODS[key]))
]


CACHES = [
    pytest.param(method, id=f"{key}-{index}")
    for key in CACHE
    for index, method in enumerate(settings_of(METHODS[key]))
]


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
