"""Trees drawn without taking a token twice, drafts that end in time, and the chances they leave."""

import itertools
import math

import numpy as np
import pytest

from backend.decoding.drafter import Writing
from backend.decoding.drawn_tree import DynamicTreeDrafter, EvenTreeDrafter
from backend.decoding.greedy import generate
from backend.decoding.sampling import acceptance, chances, chosen, residual
from backend.decoding.second_model import ModelDrafter
from backend.decoding.speculate import speculate
from backend.errors import SettingError
from backend.measure import lossless
from backend.methods import find
from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny
from tests.test_trees import Steady
from tests.tiny_model import TinyModel

P = np.array([0.1, 0.5, 0.15, 0.25])
Q = np.array([0.45, 0.05, 0.3, 0.2])


def without(q, token):
    rest = q.copy()
    rest[token] = 0
    return rest / rest.sum()


def orders(q, count):
    """Every way of drawing `count` tokens, none twice: its chance, and what each was drawn from."""
    for tokens in itertools.permutations(range(len(q)), count):
        chance, left, pairs = 1.0, q, []
        for token in tokens:
            pairs.append((token, left))
            chance *= left[token]
            left = without(left, token) if left[token] < 1 else left
        yield chance, pairs


def emitted(p, pairs):
    """What comes out of these drafts, token by token of the rule."""
    out, reached = np.zeros(len(p)), 1.0
    for token, q in pairs:
        kept = float(acceptance(p, q)[token])
        out[token] += reached * kept
        reached *= 1 - kept
        p = residual(p, q)
    return out + reached * p


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("p", "q"), [(P, Q), (Q, P), (P, P), (np.eye(4)[1], Q)])
def test_what_comes_out_has_the_models_own_chances_by_enumeration(p, q, count):
    total = sum(chance * emitted(p, pairs) for chance, pairs in orders(q, count))
    assert np.abs(total - p).max() < 1e-12


def test_the_rule_lets_out_what_is_enumerated():
    """One number in [0, 1) decides all: its length of each token is the enumerated chance."""
    grid = (np.arange(1000) + 0.5) / 1000
    for _, pairs in orders(Q, 2):
        counts = np.bincount([chosen(P, pairs, float(one)) for one in grid], minlength=4) / 1000
        assert np.abs(counts - emitted(P, pairs)).max() < 5e-3


def test_more_drafts_are_kept_than_of_one():
    """Chance that a drafted token is kept: sum of min(p, q) for one, more for every other one."""
    kept = [
        sum(chance * (1 - math.prod(_refusals(P, pairs))) for chance, pairs in orders(Q, count))
        for count in (1, 2, 3)
    ]
    assert kept[0] == pytest.approx(np.minimum(P, Q).sum())
    assert kept[0] < kept[1] < kept[2]


def _refusals(p, pairs):
    for token, q in pairs:
        yield 1 - float(acceptance(p, q)[token])
        p = residual(p, q)


class Drafting(Steady):
    """A second model of fixed chances, which can be cut back."""

    def session(self, batch, length):
        return Drafting.__new__(Drafting)._as(self)

    def crop(self, length):
        self.length = length


DRAFTERS = {
    "even": lambda model: EvenTreeDrafter(model, 2, 2, 2),
    "dynamic": lambda model: DynamicTreeDrafter(model, 3, 9, 0.15),
    "threshold": lambda model: ModelDrafter(model, 6, 0.6),
}


@pytest.mark.parametrize("name", DRAFTERS)
def test_sampled_texts_have_the_models_own_chances(name):
    """The last two of four tokens, 500 texts: chi-squared against the exact chances."""
    model, temperature = Steady(), 0.8
    p = chances(model.rows, temperature)
    counts = np.zeros((5, 5))
    for seed in range(500):
        drafter = DRAFTERS[name](Drafting(5))
        tokens = speculate(model, drafter, [1], 4, temperature=temperature, seed=seed).tokens
        counts[tokens[2:]] += 1
    exact = (p[1] @ p @ p)[:, None] * p
    assert lossless.chi_squared(counts.ravel(), exact.ravel()) > 1e-3


def drafted(drafter, temperature, limit=50, seed=0):
    drafter.begin(Writing(None, 40, temperature, seed))
    return drafter.propose([1, 2], limit)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_even_tree_has_its_shape_and_no_token_twice_at_a_place(temperature):
    draft = drafted(EvenTreeDrafter(Drafting(2), 3, 3, 2), temperature)
    children = [draft.parents.count(index) for index in range(-1, len(draft.tokens))]
    assert len(draft.tokens) == 3 + 6 + 12
    assert children[0] == 3
    assert children[1:10] == [2] * 9
    pairs = list(zip(draft.parents, draft.tokens, strict=True))
    assert len(set(pairs)) == len(pairs)
    assert (draft.chances is None) == (temperature == 0)


def test_without_a_temperature_the_likeliest_tokens_are_taken():
    model = Drafting(2)
    draft = drafted(EvenTreeDrafter(model, 1, 3, 1), 0.0)
    assert list(draft.tokens) == model.rows[2].topk(3).indices.tolist()


def test_each_draw_is_noted_with_what_it_was_drawn_from():
    draft = drafted(EvenTreeDrafter(Drafting(2), 1, 3, 1), 1.0)
    first = chances(Drafting(2).rows[2], 1.0)
    for index, q in enumerate(draft.chances):
        expected = first.copy()
        expected[list(draft.tokens[:index])] = 0
        assert np.allclose(q, expected / expected.sum())


@pytest.mark.parametrize("seed", range(4))
def test_a_dynamic_tree_draws_exactly_where_it_is_likely_to_be_reached(seed):
    """Every place, by its chance from the notes: asked again where likely, else not."""
    threshold, most = 0.12, 60
    draft = drafted(DynamicTreeDrafter(Drafting(3), 4, most, threshold), 1.0, seed=seed)
    assert len(draft.tokens) < most
    reached, depth = {-1: 1.0}, {-1: 0}
    for place in range(-1, len(draft.tokens)):
        children = [index for index, parent in enumerate(draft.parents) if parent == place]
        left = reached[place]
        for index in children:
            assert left >= threshold
            chance = float(draft.chances[index][draft.tokens[index]])
            reached[index], depth[index] = left * chance, depth[place] + 1
            left *= 1 - chance
        if depth[place] < 4 and len(children) < 5:
            assert left < threshold


def test_a_draft_ends_behind_the_token_that_makes_a_refusal_likely():
    model = Drafting(3)
    draft = drafted(ModelDrafter(model, 20, 0.75), 0.0)
    last, kept = 2, []
    for token in draft.tokens:
        kept.append(float(chances(model.rows[last], 1.0)[token]))
        last = token
    assert 1 - np.prod(kept) > 0.75
    assert 1 - np.prod(kept[:-1]) <= 0.75
    assert len(drafted(ModelDrafter(model, 20), 0.0).tokens) == 20


def test_a_witness_holds_later_drafts_against_what_is_left():
    witness = lossless.Witness(EvenTreeDrafter(Drafting(4), 2, 3, 2))
    speculate(Steady(), witness, [1], 30, temperature=1.0)
    (found,) = lossless.sampling_readings(witness.pairs)
    assert found.value == 0
    assert found.samples > 20
    model = chances(Steady().rows, 1.0)
    seen = [any(np.allclose(p, row) for row in model) for p, _ in witness.pairs]
    assert not all(seen), "some are what an earlier draft left"


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("key", ["rsd", "dyspec", "specdec-threshold"])
def test_no_token_is_changed(key, family):
    model, other = (TransformersModel(tiny.build(family, seed=seed)) for seed in (0, 1))
    prompt = tiny.tokens(1, 8)[0].tolist()
    (plain,) = generate(model, [prompt], 12, ignore_end=True)
    fast = speculate(model, find(key)().drafter(model, other), prompt, 12, ignore_end=True)
    assert fast.tokens == plain.tokens
    same = speculate(model, find(key)().drafter(model, model), prompt, 12, ignore_end=True)
    assert same.tokens == plain.tokens
    assert same.tokens_per_call > 1.3  # a window that is full takes no more drafts


def test_the_model_as_its_own_draft_is_kept_when_sampling_too():
    model = TinyModel(seed=2).double()
    fast = speculate(model, EvenTreeDrafter(model, 3, 1, 1), [5, 6], 25, temperature=1.0, seed=3)
    assert fast.accepted == (3,) * 6


@pytest.mark.parametrize("key", ["rsd", "dyspec", "specdec-threshold"])
def test_without_its_second_model_it_says_what_is_missing(key):
    with pytest.raises(SettingError, match="rtn@4"):
        find(key)().drafter(TinyModel())
