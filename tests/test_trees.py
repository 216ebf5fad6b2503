"""Trees of drafts: what is fed, what is kept, and that no tree changes a token or its chance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.caches import BitmapCodec, CorrectedCodec, IntegerCodec, SalientCodec, WindowCodec
from backend.decoding.drafter import Draft, Drafter, Silent
from backend.decoding.greedy import generate
from backend.decoding.sampling import chances
from backend.decoding.speculate import speculate
from backend.measure import lossless
from backend.models.language_model import TransformersModel
from tests import tiny_transformers as tiny
from tests.tiny_model import TinyModel

FAMILIES = ["llama", "qwen3", "gemma2", "gemma3", "phi", "gpt2", "opt", "neox", "mixtral"]
CODECS = {
    "integer": IntegerCodec(3, 3, 16, 12),
    "corrected": CorrectedCodec(3, 3, 2, 0.02, 32, 12),
    "salient": SalientCodec(4, 2, 0.5, 32, 12),
    "bitmap": BitmapCodec(4, 4, 16, 12),
    "window": WindowCodec(2, 12, 16, 4096, 64),
}


class Guessing(Drafter):
    """A random tree, whose first path is right every other time."""

    def __init__(self, answer, start, seed, vocabulary):
        self.answer, self.start, self.vocabulary = answer, start, vocabulary
        self.random = np.random.default_rng(seed)

    def propose(self, tokens, limit):
        count = int(self.random.integers(0, 9))
        parents = [int(self.random.integers(-1, index)) for index in range(count)]
        drafted = self.random.integers(3, self.vocabulary, count).tolist()
        done, node = len(tokens) - self.start, -1
        for index, parent in enumerate(parents):
            if parent == node and done < len(self.answer) and self.random.random() < 0.7:
                drafted[index], node, done = self.answer[done], index, done + 1
        return Draft(tuple(drafted), tuple(parents))


def trees():
    def build(parts):
        tokens, parents = [], []
        for token, parent in parts:
            parents.append(parent % (len(tokens) + 1) - 1)
            tokens.append(token)
        return Draft(tuple(tokens), tuple(parents))

    return st.lists(st.tuples(st.integers(-2, 18), st.integers(0, 20)), max_size=10).map(build)


class Scripted(Drafter):
    """Proposes what a list says, whatever came before."""

    def __init__(self, drafts):
        self.drafts = list(drafts)

    def propose(self, tokens, limit):
        return self.drafts.pop(0) if self.drafts else Draft()


@settings(max_examples=60, deadline=None)
@given(drafts=st.lists(trees(), max_size=10), seed=st.integers(0, 3), count=st.integers(1, 14))
def test_no_tree_however_bad_changes_a_token(drafts, seed, count):
    model = TinyModel(seed=seed, end=0).double()
    (plain,) = generate(model, [[3, 1]], count)
    assert speculate(model, Scripted(drafts), [3, 1], count).tokens == plain.tokens


@settings(max_examples=100, deadline=None)
@given(draft=trees(), nodes=st.integers(0, 8), depth=st.integers(0, 4), branches=st.booleans())
def test_what_is_usable_of_a_tree_is_a_tree_within_its_limits(draft, nodes, depth, branches):
    kept = draft.usable(nodes, depth, 16, branches=branches)
    assert len(kept.tokens) <= nodes
    depths = {-1: 0}
    for index, parent in enumerate(kept.parents):
        assert parent < index
        depths[index] = depths[parent] + 1
        assert depths[index] <= depth
    assert all(0 <= token < 16 for token in kept.tokens)
    if not branches:
        assert len(set(kept.parents)) == len(kept.parents)


def test_a_token_of_a_tree_sees_the_text_and_its_own_branch():
    """Fed as a tree, every node has the logits it has at the end of its own path."""
    for family in FAMILIES:
        model = TransformersModel(tiny.build(family))
        prompt, drafted = tiny.tokens(1, 5), tiny.tokens(1, 6, seed=3)
        parents = [-1, 0, 0, 1, 2, -1]
        session = model.session(1, 40)
        session.feed(prompt)
        found = session.feed(drafted, parents)[0]
        for node in range(6):
            path, at = [], node
            while at >= 0:
                path.insert(0, int(drafted[0, at]))
                at = parents[at]
            alone = model.logits(torch.cat([prompt, torch.tensor([path])], 1))[0, -1]
            assert torch.allclose(found[node], alone, atol=1e-3), (family, node)
        session.pick(5, [0, 2, 4])
        assert session.length == 8
        following = session.feed(tiny.tokens(1, 1, seed=8))[0, -1]
        path = torch.cat([prompt, drafted[:, [0, 2, 4]], tiny.tokens(1, 1, seed=8)], 1)
        assert torch.allclose(following, model.logits(path)[0, -1], atol=1e-3), family


@pytest.mark.parametrize("family", FAMILIES)
def test_trees_leave_the_text_of_plain_decoding(family):
    model, accepted = TransformersModel(tiny.build(family)), 0
    for seed in range(3):
        prompt = tiny.tokens(1, 6, seed=seed)[0].tolist()
        (plain,) = generate(model, [prompt], 40, ignore_end=True)
        drafter = Guessing(plain.tokens, 6, seed, tiny.VOCABULARY)
        fast = speculate(model, drafter, prompt, 40, ignore_end=True)
        assert fast.tokens == plain.tokens
        accepted += sum(fast.accepted)
    assert accepted > 10 or family == "gemma3"  # its window is soon full


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize("codec", CODECS)
def test_trees_leave_the_text_of_the_same_cache_token_by_token(codec, family):
    model, accepted = TransformersModel(tiny.build(family), CODECS[codec]), 0
    for seed in range(2):
        prompt = tiny.tokens(1, 20, seed=seed)[0].tolist()
        (plain,) = generate(model, [prompt], 60, ignore_end=True)
        drafter = Guessing(plain.tokens, 20, seed, tiny.VOCABULARY)
        fast = speculate(model, drafter, prompt, 60, ignore_end=True)
        assert fast.tokens == plain.tokens
        accepted += sum(fast.accepted)
    assert accepted > 5


def test_a_session_that_cannot_branch_gets_the_first_path():
    model = TinyModel(seed=2).double()
    (plain,) = generate(model, [[5, 6]], 20)
    made = model.session

    def session(batch, length):
        opened = made(batch, length)
        opened.branching = False
        feed = opened.feed

        def checked(tokens, parents=None):
            assert parents is None
            return feed(tokens)

        opened.feed = checked
        return opened

    model.session = session
    drafter = Guessing(plain.tokens, 2, 0, 16)
    assert speculate(model, drafter, [5, 6], 20).tokens == plain.tokens


class Steady:
    """Gives fixed logits for what follows each token, so that chances are known exactly."""

    device, vocabulary_size, end_token, skippable = torch.device("cpu"), 5, None, ()
    has_cache_method, branching, length = False, True, 0

    def __init__(self, seed=0):
        self.rows = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed)) * 1.5

    def session(self, batch, length):
        return Steady.__new__(Steady)._as(self)

    def _as(self, other):
        self.rows = other.rows
        return self

    def feed(self, tokens, parents=None):
        self.length += tokens.shape[1]
        return self.rows[tokens]

    def read(self, tokens):
        return self.feed(tokens)[:, -1]

    def pick(self, start, places):
        self.length = start + len(places)

    def croppable(self):
        return 100


class Drawing(Drafter):
    """Draws two tokens from chances of its own."""

    def begin(self, writing):
        self.random = np.random.default_rng(writing.seed + 7)
        self.q = chances(torch.randn(5, generator=torch.Generator().manual_seed(9)), 1.0)

    def propose(self, tokens, limit):
        drawn = [int(self.random.choice(5, p=self.q)) for _ in range(min(2, limit))]
        return Draft.chain(drawn, [self.q] * len(drawn))


class Sure(Drafter):
    """A tree of tokens chosen without chance."""

    def propose(self, tokens, limit):
        return Draft((0, 1, 2, 0, 3), (-1, -1, 0, 0, 1)).usable(limit, 9, 5, branches=True)


@pytest.mark.parametrize("drafter", [Silent, Drawing, Sure])
def test_sampled_texts_have_the_models_own_chances(drafter):
    """Three tokens, 3,000 texts: chi-squared against the exact product of the rows."""
    model, temperature = Steady(), 0.8
    p = chances(model.rows, temperature)
    counts = np.zeros((5, 5, 5))
    for seed in range(3000):
        tokens = speculate(model, drafter(), [1], 3, temperature=temperature, seed=seed).tokens
        counts[tokens] += 1
    exact = p[1][:, None, None] * p[:, :, None] * p[None, :, :]
    assert lossless.chi_squared(counts.ravel(), exact.ravel()) > 1e-3


def test_a_witness_notes_the_chances_of_every_drafted_token():
    model = Steady()
    witness = lossless.Witness(Drawing())
    speculate(model, witness, [1], 12, temperature=1.0)
    assert len(witness.pairs) >= 8
    (found,) = lossless.sampling_readings(witness.pairs)
    assert found.value == 0
    assert found.samples == len(witness.pairs)
    sure = lossless.Witness(Sure())
    speculate(model, sure, [1], 12, temperature=1.0)
    assert all(q.max() == 1 and q.sum() == 1 for _, q in sure.pairs)
