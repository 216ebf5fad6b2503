"""Multi-draft: acceptance against the bound of optimal transport, by enumeration and as texts."""

import itertools

import numpy as np
import pytest
import torch

from backend.decoding import independent
from backend.decoding.drafter import Writing
from backend.decoding.greedy_tree import GreedyTreeDrafter
from backend.decoding.sampling import chances, chosen
from backend.decoding.speculate import speculate
from backend.measure import lossless
from tests.test_drawn_trees import Drafting
from tests.test_trees import Steady

P = np.array([0.1, 0.45, 0.2, 0.05, 0.2])
Q = np.array([0.4, 0.1, 0.25, 0.05, 0.2])
CASES = [(P, Q), (Q, P), (P, P), (np.full(5, 0.2), Q)]
GRID = (np.arange(4000) + 0.5) / 4000


def drafts(q, count):
    """Every set of drafts with what each was drawn from, the certain ones last, and its chance."""
    likeliest = np.argsort(-q, kind="stable")[: count - 1]
    rest = q.copy()
    rest[likeliest] = 0
    rest /= rest.sum()
    certain = [(int(token), np.eye(len(q))[token]) for token in likeliest]
    for token in np.flatnonzero(rest):
        yield [(int(token), rest), *certain], float(rest[token])


def bound(p, q, count):
    """The most often that any verification can keep a draft: the dual, over all sets of tokens.

    min over H of p(H) + 1 - chance that all drafts lie in H (Hu et al., theorem 2).
    """
    sets = [({token for token, _ in drawn}, chance) for drawn, chance in drafts(q, count)]
    least = 1.0
    for size in range(len(p) + 1):
        for chosen_set in itertools.combinations(range(len(p)), size):
            inside = sum(chance for drawn, chance in sets if drawn <= set(chosen_set))
            least = min(least, float(p[list(chosen_set)].sum()) + 1 - inside)
    return least


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(("p", "q"), CASES)
def test_drafts_are_kept_as_often_as_any_verification_can(p, q, count):
    out, kept = np.zeros(5), 0.0
    for drawn, chance in drafts(q, count):
        found = np.array([chosen(p, drawn, float(one)) for one in GRID])
        out += chance * np.bincount(found, minlength=5) / len(GRID)
        kept += chance * float(np.isin(found, [token for token, _ in drawn]).mean())
    assert np.abs(out - p).max() < 2e-3, "the model's own chances come out"
    assert kept == pytest.approx(bound(p, q, count), abs=2e-3)


def test_the_bound_by_hand():
    """Two drafts of q: token 0, and one of 0.1, 0.25, 0.05, 0.2 over 0.6: 1/6, 5/12, 1/12, 1/3.

    0.1 for token 0, and 1/6, 0.2, 0.05 and 0.2 where both agree.
    """
    assert bound(P, Q, 2) == pytest.approx(0.1 + 1 / 6 + 0.2 + 0.05 + 0.2)


def test_more_is_kept_than_of_drafts_drawn_independently():
    for count in (2, 3):
        assert bound(P, Q, count) > independent.kept(P, Q, count).sum()


def test_the_likeliest_stand_in_the_tree_behind_the_one_that_is_drawn():
    model = Drafting(3)
    drafter = GreedyTreeDrafter(model, 2, 3, 2)
    drafter.begin(Writing(None, 40, 1.0, 0))
    draft = drafter.propose([1, 2], 50)
    assert len(draft.tokens) == 3 + 3 * 2
    q = chances(model.rows, 1.0)
    for node, children in draft.drafts().items():
        before = 2 if node < 0 else draft.tokens[node]
        first, *others = (draft.tokens[child] for child in children)
        order = np.argsort(-q[before], kind="stable").tolist()
        assert others == order[: len(others)]
        assert first not in others
        assert draft.chances[children[0]][others].sum() == 0
        assert draft.chances[children[0]].sum() == pytest.approx(1)


@pytest.mark.parametrize("inner", [1, 2])
def test_sampled_texts_have_the_models_own_chances(inner):
    """The last two of four tokens, 500 texts: chi-squared against the exact chances."""
    model, temperature = Steady(), 0.8
    p = chances(model.rows, temperature)
    counts = np.zeros((5, 5))
    for seed in range(500):
        drafter = GreedyTreeDrafter(Drafting(5), 2, 3, inner)
        tokens = speculate(model, drafter, [1], 4, temperature=temperature, seed=seed).tokens
        counts[tokens[2:]] += 1
    exact = (p[1] @ p @ p)[:, None] * p
    assert lossless.chi_squared(counts.ravel(), exact.ravel()) > 1e-3


def test_a_witness_holds_every_draft_against_the_models_chances():
    witness = lossless.Witness(GreedyTreeDrafter(Drafting(4), 2, 3, 1))
    speculate(Steady(), witness, [1], 30, temperature=1.0)
    (found,) = lossless.sampling_readings(witness.pairs)
    assert found.value == 0
    assert found.samples > 20


def test_without_a_temperature_the_likeliest_are_taken():
    drafter = GreedyTreeDrafter(Drafting(3), 1, 3, 1)
    drafter.begin(Writing(None, 40, 0.0, 0))
    draft = drafter.propose([1, 2], 50)
    assert draft.chances is None
    rows = torch.as_tensor(Drafting(3).rows[2])
    assert list(draft.tokens) == rows.argsort(descending=True)[:3].tolist()
