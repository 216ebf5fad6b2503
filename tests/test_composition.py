"""A method of weights or structure, a cache and a drafter run as one recipe; every two meet."""

import copy
import itertools

import pytest
import torch

from backend import formats, methods
from backend.compress import compress
from backend.decoding.greedy import generate
from backend.decoding.speculate import speculate
from backend.errors import ModelError, OutOfReachError
from backend.methods.base import CacheMethod, DecodeMethod, LayerMethod, ModelMethod, PrefillMethod
from backend.models.language_model import TransformersModel
from backend.models.observing import Observed
from backend.models.session import key_value_shape
from backend.recipes import Recipe
from tests import looking
from tests import tiny_transformers as tiny
from tests.compressed import brief

METHODS = methods.catalogue()
WEIGHTS = [key for key, cls in METHODS.items() if issubclass(cls, LayerMethod | ModelMethod)]
CACHES = [key for key, cls in METHODS.items() if issubclass(cls, CacheMethod)]
READERS = [key for key, cls in METHODS.items() if issubclass(cls, PrefillMethod)]
DRAFTERS = [key for key, cls in METHODS.items() if issubclass(cls, DecodeMethod)]
FAMILIES = ("llama", "gpt2", "gemma3", "mixtral")
WINDOWS = tiny.tokens(4, 16)


def fitted(cls, treat):
    """What `treat` makes of a method at the least budget in reach."""
    for bits in range(3, 18):
        try:
            return treat(brief(cls().at(float(bits))))
        except OutOfReachError:
            continue
    raise AssertionError(f"{cls.key()} treats no tiny model.")


def treated(family, key, folder):
    """A tiny model treated by one method."""

    def treat(method):
        source = tiny.loaded(tiny.build(family), folder)
        return compress(source, Recipe((method,)), WINDOWS).view.model

    return fitted(METHODS[key], treat)


def pairs(key):
    """Caches and drafters beside one method, so that all methods together meet every pair.

    Each method of weights meets every cache and every drafter.
    """
    turn = WEIGHTS.index(key)
    for index in range(max(len(CACHES), len(DRAFTERS))):
        cache = CACHES[index % len(CACHES)]
        yield cache, DRAFTERS[(index + turn) % len(DRAFTERS)]


def test_every_two_methods_meet():
    met = {(key, *pair) for key in WEIGHTS for pair in pairs(key)}
    for sort, other in ((0, 1), (0, 2), (1, 2)):
        kinds = (WEIGHTS, CACHES, DRAFTERS)
        wanted = set(itertools.product(kinds[sort], kinds[other]))
        assert {(one[sort], one[other]) for one in met} == wanted


@pytest.mark.parametrize("key", WEIGHTS)
def test_a_recipe_of_weights_cache_and_drafting_writes_its_own_text(key, tmp_path):
    """The text of the same model and cache without the drafter, and all of it finite."""
    prompt = tiny.tokens(1, 40)[0].tolist()
    try:
        model = treated(FAMILIES[WEIGHTS.index(key) % len(FAMILIES)], key, tmp_path)
    except ModelError:  # a method of structure names the families it knows
        model = treated("llama", key, tmp_path / "llama")
    _read_together(model, [prompt, prompt[:11], prompt[20:]])
    for cache, drafter in pairs(key):
        shape = key_value_shape(model.config)
        codec = fitted(METHODS[cache], lambda method, shape=shape: method.codec(*shape))
        codec = looking.fitted(codec, Observed(model, WINDOWS))
        variant = TransformersModel(model, codec)
        method = METHODS[drafter]()
        recipe = Recipe((METHODS[key](), METHODS[cache](), method))
        assert Recipe.parse(recipe.text()) == recipe
        draft = copy.deepcopy(model) if method.draft_recipe else None
        second = None if draft is None else TransformersModel(draft)
        (plain,) = generate(variant, [prompt], 6, ignore_end=True)
        fast = speculate(variant, method.drafter(variant, second), prompt, 6, ignore_end=True)
        assert fast.tokens == plain.tokens, (cache, drafter)
        session = variant.session(1, 40)
        assert torch.isfinite(session.feed(torch.tensor([prompt]))).all()
        assert session.cache_bytes() > 0


def _read_together(model, prompts):
    """Prompts in one pass, by every way to lay them out, give what they give alone.

    As near as products of few activations, rounded to 16 bits, are to exact ones of many; where
    inputs are rounded to few bits by the recipe, some fall on the other side by that.
    """
    variant = TransformersModel(model)
    coarse = any(isinstance(part, formats.RoundedInputs) for part in model.modules())
    for key in READERS:
        rows = METHODS[key]().rows([len(prompt) for prompt in prompts])
        together, _ = variant.prefill(prompts, rows)
        for prompt, own in zip(prompts, together, strict=True):
            alone = variant.logits(torch.tensor([prompt]))[0, -1]
            assert (own - alone).norm() < (0.2 if coarse else 1e-3) * alone.norm(), key
