"""SWIFT: what is left out, through whose cache, and how the search finds a better set."""

import numpy as np
import pytest
import torch

from backend.decoding.drafter import Writing
from backend.decoding.greedy import generate
from backend.decoding.skipping import SkippingDrafter
from backend.decoding.speculate import speculate
from backend.methods.decode.swift import Swift
from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny
from tests.tiny_model import TinyModel


@pytest.mark.parametrize("family", tiny.CONFIGS)
def test_a_model_without_halves_is_its_residual_stream(family):
    """All networks and all but the first attention left out: as with their outputs at zero."""
    network, tokens = tiny.build(family), tiny.tokens(1, 9)
    model = TransformersModel(network)
    before = model.logits(tokens)
    assert len(model.skippable) == (3 if family != "gemma2" and family != "gemma3" else 2)
    with model.without(model.skippable):
        found = model.logits(tokens)
    assert not torch.allclose(found, before, atol=1e-2)
    assert torch.equal(model.logits(tokens), before)
    names = [name for half in model.skippable for name in model._halves[half]]

    def silence(_module, _arguments, output):
        if isinstance(output, tuple):
            return torch.zeros_like(output[0]), *output[1:]
        return torch.zeros_like(output)

    hooks = [network.get_submodule(name).register_forward_hook(silence) for name in names]
    silent = model.logits(tokens)
    for hook in hooks:
        hook.remove()
    assert torch.allclose(found, silent, atol=1e-4)


def test_an_error_inside_puts_everything_back():
    model = TransformersModel(tiny.build("llama"))
    before = model.logits(tiny.tokens())
    with pytest.raises(RuntimeError, match="inside"), model.without(model.skippable):
        raise RuntimeError("inside")
    assert torch.equal(model.logits(tiny.tokens()), before)


def settings(**changes):
    base = {"share": 0.4, "length": 6, "confidence": 0.0, "tries": 50, "context": 32}
    return base | changes


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "opt", "neox", "mixtral"])
def test_the_text_is_that_of_plain_greedy_decoding(family):
    model = TransformersModel(tiny.build(family))
    drafter = Swift(confidence=0.0, share=0.3).drafter(model)
    for seed in range(2):
        prompt = tiny.tokens(1, 8, seed=seed)[0].tolist()
        (plain,) = generate(model, [prompt], 30, ignore_end=True)
        fast = speculate(model, drafter, prompt, 30, ignore_end=True)
        assert fast.tokens == plain.tokens


def test_a_draft_is_written_through_the_models_own_cache_and_leaves_no_trace():
    model = TransformersModel(tiny.build("llama", num_hidden_layers=4), lean=False)
    session = model.session(1, 40)
    prompt = tiny.tokens(1, 10)[0].tolist()
    session.feed(torch.tensor([prompt[:-1]]))
    held = [layer.keys.clone() for layer in session._cache.layers]
    drafter = SkippingDrafter(model, **settings())
    drafter.begin(Writing(session, 40))
    draft = drafter.propose(prompt, 6)
    assert len(draft.tokens) == 6
    assert session.length == 9
    for before, layer in zip(held, session._cache.layers, strict=True):
        assert torch.equal(layer.keys, before)


def test_a_draft_ends_where_the_shallow_model_is_not_sure():
    model = TransformersModel(tiny.build("llama", num_hidden_layers=4), lean=False)
    session = model.session(1, 40)
    session.feed(tiny.tokens(1, 9))
    drafter = SkippingDrafter(model, **settings(confidence=1.0))
    drafter.begin(Writing(session, 40))
    assert len(drafter.propose(tiny.tokens(1, 10)[0].tolist(), 6).tokens) == 1


class Planted:
    """Twelve halves; each odd one is needed for a twelfth of the tokens, the even for none."""

    device, vocabulary_size, skippable = torch.device("cpu"), 2, tuple(map(str, range(12)))

    def __init__(self):
        self.gone = ()

    def without(self, halves):
        model = self

        class Without:
            def __enter__(self):
                model.gone = tuple(map(int, halves))

            def __exit__(self, *_):
                model.gone = ()

        return Without()

    def logits(self, tokens):
        wrong = {half for half in self.gone if half % 2}
        length = tokens.shape[1]
        found = torch.zeros(1, length, 2)
        for place in range(length - 1):
            true = int(tokens[0, place + 1])
            found[0, place, 1 - true if place % 12 in wrong else true] = 1.0
        return found


def test_the_search_finds_the_halves_that_are_not_needed():
    model = Planted()
    drafter = SkippingDrafter(model, **settings(share=0.5, tries=150, context=49))
    drafter._written = 0
    tokens = np.random.default_rng(0).integers(0, 2, 60).tolist()
    first = drafter._match(drafter.skipped, tokens, 48)
    for _ in range(150):
        drafter._search(tokens)
    assert drafter.matched > max(0.9, first)
    assert sum(half % 2 == 0 for half in np.flatnonzero(drafter.skipped)) >= 5
    assert drafter.skipped.sum() == 6


def test_a_model_with_nothing_to_spare_is_decoded_plainly():
    model = TinyModel(seed=2)
    (plain,) = generate(model, [[5, 6]], 12)
    fast = speculate(model, Swift().drafter(model), [5, 6], 12)
    assert fast.tokens == plain.tokens
    assert set(fast.accepted) == {0}
