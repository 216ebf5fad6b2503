"""Rows run through a model in batches: what an accelerator without enough memory makes of them."""

from __future__ import annotations

import pytest
import torch

from backend.jobs.confinement import shortage
from backend.measure.passes import blocks

pytestmark = pytest.mark.faults
WORDS = 7


class Tight:
    """A model of an accelerator that holds `most` rows; the logits of a token point at it."""

    vocabulary_size = WORDS
    device = torch.device("cpu")

    def __init__(self, most, cached=False):
        self.most, self.has_cache_method = most, cached
        self.sizes = []

    def logits(self, tokens):
        self.sizes.append(len(tokens))
        if len(tokens) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return torch.nn.functional.one_hot(tokens, WORDS).float()

    def session(self, batch, length):
        return self

    def feed(self, tokens):
        return self.logits(tokens)


ROWS = [[1, 2, 3], [4, 5], [6, 1, 2], [3, 4], [5, 6, 1], [2]]


def seen(model):
    """Every token that was met, by row and position, and how often."""
    met = []
    for block in blocks(model, ROWS, prefill=2):
        for line, row in enumerate(block.rows):
            for column, token in enumerate(block.logits[line].argmax(-1).tolist()):
                if block.start + column < len(ROWS[row]):
                    met.append((row, block.start + column, token))
    return sorted(met)


EVERY = sorted(
    (row, at, token) for row, tokens in enumerate(ROWS) for at, token in enumerate(tokens)
)


@pytest.mark.parametrize("cached", [False, True])
def test_a_batch_that_does_not_fit_is_tried_once_more_by_half(cached):
    model = Tight(3, cached)
    assert seen(model) == EVERY
    assert model.sizes[:2] == [6, 3]
    roomy = Tight(6, cached)
    assert seen(roomy) == EVERY
    assert max(roomy.sizes) == 6
    assert roomy.sizes.count(6) == (2 if cached else 1)


def test_what_does_not_fit_by_half_fails_in_words():
    model = Tight(2)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        seen(model)
    assert model.sizes == [6, 3]
    assert shortage(caught.value).startswith("out_of_memory: the accelerator's memory")
