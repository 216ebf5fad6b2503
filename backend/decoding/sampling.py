"""Which token a model writes: its first choice, or one drawn, and what a draft changes of that.

Speculative sampling, Leviathan et al., arXiv 2211.17192, theorem 1: what comes out is distributed
as `p`, whatever `q` is. No model is called here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from backend.decoding import independent
from backend.decoding.greedy import choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from backend.decoding.drafter import Draft


class FirstChoice:
    """The token of the highest logit."""

    def read(self, logits: torch.Tensor) -> None:
        """Take the logits [t, V] of the tokens that were fed."""
        self._chosen = choose(logits).tolist()

    def token(self, row: int, draft: Draft, drawn: Sequence[int]) -> int:  # noqa: ARG002
        """The token after the one at `row`; drafts change nothing."""
        return self._chosen[row]


class Sampling:
    """A token drawn at a temperature above 0."""

    def __init__(self, temperature: float, seed: int) -> None:
        self._temperature = temperature
        self._random = np.random.default_rng(seed)

    def read(self, logits: torch.Tensor) -> None:
        """Take the logits [t, V] of the tokens that were fed."""
        self._p = chances(logits, self._temperature)

    def token(self, row: int, draft: Draft, drawn: Sequence[int]) -> int:
        """The token after the one at `row`.

        Where those drafted there, at indices `drawn`, were drawn by chance too, the first that is
        accepted is kept, or all are replaced. One chosen without chance needs no rule: it is kept
        where it is what is drawn.
        """
        uniform = float(self._random.random())
        if draft.chances is None:
            return quantile(self._p[row], uniform)
        if draft.drawn is not None and drawn:
            tokens = [draft.tokens[index] for index in drawn]
            return chosen_independent(self._p[row], draft.chances[drawn[0]], tokens, uniform)
        pairs = [(draft.tokens[index], draft.chances[index]) for index in drawn]
        return chosen(self._p[row], pairs, uniform)


def chances(logits: torch.Tensor, temperature: float) -> NDArray[np.float64]:
    """Return the probabilities of logits [..., V] at a temperature above 0."""
    return (logits.double() / temperature).softmax(-1).cpu().numpy()


def quantile(p: NDArray[np.float64], uniform: float) -> int:
    """Return the token at which the summed probabilities [V] pass `uniform` in [0, 1)."""
    cumulative = np.cumsum(p)
    token = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(token, len(cumulative) - 1)


def acceptance(p: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """Return the chance min(1, p/q) of keeping each token when the drafter proposes it."""
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    return np.minimum(1.0, np.divide(p, q, out=np.ones_like(p), where=q > 0))


def residual(p: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """Return the distribution to draw from after a refusal: the part of `p` above `q`, scaled."""
    p = np.asarray(p, np.float64)
    excess = np.maximum(p - np.asarray(q, np.float64), 0.0)
    total = excess.sum()
    # Nothing of p lies above q only where both are equal, and then nothing is refused.
    return excess / total if total > 0 else p / p.sum()


def chosen(p: ArrayLike, drafts: Sequence[tuple[int, NDArray[np.float64]]], uniform: float) -> int:
    """Return the token to emit: the first draft that is accepted, else one in place of all.

    Each refusal leaves of `p` what its draft did not offer, and the next draft is held against
    that (recursive rejection, Jeon et al., arXiv 2402.14160, theorem 3.1).

    Args:
        p: probabilities [V] of the model.
        drafts: tokens with the probabilities [V] that each was drawn from, given those before it.
        uniform: one number in [0, 1); what each acceptance leaves of it decides what follows.
    """
    p = np.asarray(p, np.float64)
    for token, q in drafts:
        chance = float(acceptance(p, q)[token])
        if uniform < chance:
            return token
        uniform = (uniform - chance) / (1.0 - chance)
        p = residual(p, q)
    return quantile(p, uniform)


def chosen_independent(p: ArrayLike, q: ArrayLike, tokens: Sequence[int], uniform: float) -> int:
    """Return the token to emit of drafts drawn independently: the first kept, else another.

    Args:
        p: probabilities [V] of the model.
        q: probabilities [V] that every token was drawn from.
        tokens: in the order in which they were drawn, the same one perhaps several times.
        uniform: one number in [0, 1); what each refusal leaves of it decides what follows.
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    by = independent.divisor(p, q, len(tokens))
    for token in tokens:
        chance = min(1.0, float(p[token] / (by * q[token])))
        if uniform < chance:
            return token
        uniform = (uniform - chance) / (1.0 - chance)
    return quantile(independent.residual(p, q, len(tokens)), uniform)
