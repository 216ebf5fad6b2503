"""SpecTr: what comes out of several independent drafts, by enumeration, and as texts."""

import itertools

import numpy as np
import pytest

from backend.decoding import independent
from backend.decoding.drafter import Draft, Writing
from backend.decoding.drawn_sequences import SequencesDrafter
from backend.decoding.greedy import generate
from backend.decoding.sampling import chances, chosen_independent
from backend.decoding.speculate import speculate
from backend.measure import lossless
from backend.methods import find
from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny
from tests.test_drawn_trees import Drafting
from tests.test_trees import Steady
from tests.tiny_model import TinyModel

P = np.array([0.1, 0.5, 0.15, 0.25])
Q = np.array([0.45, 0.05, 0.3, 0.2])
CASES = [(P, Q), (Q, P), (P, P), (np.eye(4)[1], Q), (P, np.eye(4)[2])]


def draws(q, count):
    """Every way of drawing so many tokens independently, and its chance."""
    places = np.flatnonzero(q)
    for tokens in itertools.product(places.tolist(), repeat=count):
        yield tokens, float(np.prod(q[list(tokens)]))


def kept(p, q, tokens):
    """Chance that each token comes out of these drafts, and what is left for none of them."""
    by, out, reached = independent.divisor(p, q, len(tokens)), np.zeros(len(p)), 1.0
    for token in tokens:
        chance = min(1.0, p[token] / (by * q[token]))
        out[token] += reached * chance
        reached *= 1 - chance
    return out, reached


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(("p", "q"), CASES)
def test_what_comes_out_has_the_models_own_chances_by_enumeration(p, q, count):
    total, drafted = np.zeros(4), np.zeros(4)
    for tokens, chance in draws(q, count):
        own, refused = kept(p, q, tokens)
        drafted += chance * own
        total += chance * (own + refused * independent.residual(p, q, count))
    assert np.abs(total - p).max() < 1e-12
    assert np.abs(drafted - independent.kept(p, q, count)).max() < 1e-12
    assert np.abs(independent.emitted(p, q, count) - p).max() < 1e-12


def test_a_divisor_by_hand():
    """p = (1, 0), q = (1/2, 1/2), two drafts: b = 1/2 up to d = 2, and 1 - 1/4 = d / 2."""
    p, q = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    assert independent.divisor(p, q, 2) == pytest.approx(1.5)
    assert independent.kept(p, q, 2).tolist() == pytest.approx([0.75, 0.0])
    assert independent.divisor(p, q, 1) == 1.0


def test_more_drafts_are_kept_than_of_one():
    shares = [independent.kept(P, Q, count).sum() for count in (1, 2, 4, 8)]
    assert shares[0] == pytest.approx(np.minimum(P, Q).sum())
    assert shares == sorted(shares)
    assert shares[-1] > 1.2 * shares[0]


def test_the_rule_lets_out_what_is_enumerated():
    grid = (np.arange(2000) + 0.5) / 2000
    for tokens in [(0, 2), (0, 0, 1), (3, 1, 3)]:
        out, refused = kept(P, Q, tokens)
        expected = out + refused * independent.residual(P, Q, len(tokens))
        found = [chosen_independent(P, Q, tokens, float(one)) for one in grid]
        assert np.abs(np.bincount(found, minlength=4) / 2000 - expected).max() < 5e-3


@pytest.mark.parametrize("count", [1, 3])
def test_sampled_texts_have_the_models_own_chances(count):
    """The last two of four tokens, 500 texts: chi-squared against the exact chances."""
    model, temperature = Steady(), 0.8
    p = chances(model.rows, temperature)
    counts = np.zeros((5, 5))
    for seed in range(500):
        drafter = SequencesDrafter(Drafting(5), count, 3)
        tokens = speculate(model, drafter, [1], 4, temperature=temperature, seed=seed).tokens
        counts[tokens[2:]] += 1
    exact = (p[1] @ p @ p)[:, None] * p
    assert lossless.chi_squared(counts.ravel(), exact.ravel()) > 1e-3


def test_texts_are_drawn_each_on_its_own_and_held_once_where_they_agree():
    """Draws after a token are as many as texts that reach it; every node stands once."""
    drafter = SequencesDrafter(Drafting(2), 6, 3)
    drafter.begin(Writing(None, 40, 1.0, 0))
    draft = drafter.propose([1, 2], 50)
    pairs = list(zip(draft.parents, draft.tokens, strict=True))
    assert len(set(pairs)) == len(pairs) < len(draft.drawn) == 18
    through = {-1: 6} | {index: draft.drawn.count(index) for index in range(len(pairs))}
    depth = {-1: 0}
    for index, parent in enumerate(draft.parents):
        depth[index] = depth[parent] + 1
    for node, drafts in draft.drafts().items():
        assert len(drafts) == through[node]
    assert {depth[node] for node in through if node not in draft.drafts()} == {3}


def test_the_part_that_can_be_verified_keeps_the_order_of_draws():
    q = np.full(4, 0.25)
    draft = Draft((1, 2, 3), (-1, -1, 0), (q, q, q), (0, 1, 0, 2, 2))
    assert draft.drafts() == {-1: [0, 1, 0], 0: [2, 2]}
    shallow = draft.usable(9, 1, 4, branches=True)
    assert (shallow.tokens, shallow.drawn) == ((1, 2), (0, 1, 0))


def test_a_witness_holds_several_drafts_against_the_models_chances():
    witness = lossless.Witness(SequencesDrafter(Drafting(4), 3, 2))
    speculate(Steady(), witness, [1], 30, temperature=1.0)
    (found,) = lossless.sampling_readings(witness.pairs)
    assert found.value == 0
    assert found.samples > 20
    assert {count for _, _, count in witness.pairs} >= {1, 3}


def test_the_model_as_its_own_draft_is_always_kept():
    model = TinyModel(seed=2).double()
    drafter = SequencesDrafter(model, 3, 3)
    fast = speculate(model, drafter, [5, 6], 25, temperature=1.0, seed=3)
    assert fast.accepted == (3,) * 6


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("key", ["spectr", "mdsd"])
def test_no_token_is_changed(key, family):
    model, other = (TransformersModel(tiny.build(family, seed=seed)) for seed in (0, 1))
    prompt = tiny.tokens(1, 8)[0].tolist()
    (plain,) = generate(model, [prompt], 12, ignore_end=True)
    for second in (other, model):
        drafter = find(key)().drafter(model, second)
        fast = speculate(model, drafter, prompt, 12, ignore_end=True)
        assert fast.tokens == plain.tokens
