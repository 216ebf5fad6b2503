"""Tiny models that recipes treat, and what is compared of them."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import math
from pathlib import Path

import torch

from backend.compress import compress
from backend.errors import OutOfReachError
from backend.methods import catalogue
from backend.methods.base import LayerMethod, RankingMethod, StackMethod
from backend.models.load import LoadedModel
from backend.sources import ModelSource
from tests import tiny_transformers as tiny

WINDOWS = tiny.tokens(4, 16)
WIDTHS = 192, 384
"""Where the matrices of the tiny model are too narrow for what a method holds beside each row."""

FEW = 16


def brief(method):
    """The method with at most a few steps of descent, where no fact hangs on how far it learns."""
    if method.settings().get("steps", 0) <= FEW:
        return method
    return dataclasses.replace(method, steps=FEW)


def state_of(view):
    return {
        site.name: (view.held(site).header(), view.held(site).dense()) for site in view.all_sites()
    }


def same(a, b):
    return a.keys() == b.keys() and all(
        a[name][0] == b[name][0] and torch.equal(a[name][1], b[name][1]) for name in a
    )


def tiny_source(family="llama", **changes):
    return LoadedModel(tiny.build(family, **changes), None, ModelSource(family), Path(), 0)


def made(recipe, folder, stacks):
    """A tiny model and what a recipe makes of it; a wider one where it must be.

    Models of each width keep their blocks of `backend.stacks` in a folder below `stacks`.
    """
    for width in (None, *WIDTHS):
        changes = {} if width is None else {**tiny.WIDE, "hidden_size": width}
        source = tiny.loaded(tiny.build("llama", **changes), folder / f"dense{width}")
        try:
            return source, compress(source, recipe, WINDOWS, statistics=stacks / f"{width}")
        except OutOfReachError:
            if width == WIDTHS[-1]:
                raise
    raise AssertionError


def assert_within(view, recipe, limit):
    """Every matrix keeps the budget, or all together where bits go to those that need them."""
    held = [view.held(site) for site in view.all_sites()]
    if any(isinstance(stage, StackMethod | RankingMethod) for stage in recipe.stages):
        numbers = sum(math.prod(one.shape) for one in held)
        assert 8 * sum(one.nbytes for one in held) <= limit * numbers
    else:
        assert all(one.bits <= limit for one in held)


def fit_once(patch):
    """Have each method fit the same matrix on the same statistics once, and give copies of that.

    That it gives the same each time is held by `test_methods_hard_cases.py`; so a hundred recipes
    that begin alike need not wait for it a hundred times.
    """
    for cls in catalogue().values():
        for name in ("fit", "stack"):
            if issubclass(cls, LayerMethod) and name in vars(cls):
                patch.setattr(cls, name, _remembered(vars(cls)[name]))


def _remembered(function):
    known = {}

    @functools.wraps(function)
    def once(method, weight, statistics):
        key = method, _content(weight), *map(_content, vars(statistics).values())
        if key not in known:
            try:
                known[key] = function(method, weight, statistics)
            except OutOfReachError as error:
                known[key] = error
        if isinstance(known[key], OutOfReachError):
            raise OutOfReachError(str(known[key]))
        return copy.deepcopy(known[key])

    return once


def _content(value):
    """What tells one value from another; factorisations follow from the rest."""
    if isinstance(value, torch.Tensor):
        numbers = value.contiguous().flatten().view(torch.uint8).numpy()
        return value.dtype, tuple(value.shape), hashlib.sha256(numbers).digest()
    return None if isinstance(value, dict) else value
