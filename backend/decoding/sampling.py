"""Which token a model writes: its first choice, or one drawn, and what a draft changes of that.

Speculative sampling, Leviathan et al., arXiv 2211.17192, theorem 1: what comes out is distributed
as `p`, whatever `q` is. No model is called here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from backend.decoding.greedy import choose

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from backend.decoding.drafter import Draft


class FirstChoice:
    """The token of the highest logit."""

    def read(self, logits: torch.Tensor) -> None:
        """Take the logits [t, V] of the tokens that were fed."""
        self._chosen = choose(logits).tolist()

    def token(self, row: int, draft: Draft, drawn: int | None) -> int:  # noqa: ARG002
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

    def token(self, row: int, draft: Draft, drawn: int | None) -> int:
        """The token after the one at `row`.

        Where the drafted one, at index `drawn`, was drawn by chance too, it is kept or replaced.
        One chosen without chance needs no rule: it is kept where it is what is drawn.
        """
        uniform = float(self._random.random())
        if draft.chances is None or drawn is None:
            return quantile(self._p[row], uniform)
        return accept(self._p[row], draft.chances[drawn], draft.tokens[drawn], uniform)[0]


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


def accept(p: ArrayLike, q: ArrayLike, draft: int, uniform: float) -> tuple[int, bool]:
    """Return the token to emit and whether it is the draft.

    Args:
        p: probabilities [V] of the model.
        q: probabilities [V] the draft was drawn from; a certain draft is a one-hot vector.
        draft: the proposed token.
        uniform: one number in [0, 1); what acceptance leaves of it also draws the replacement.
    """
    chance = float(acceptance(p, q)[draft])
    if uniform < chance:
        return draft, True
    left = (uniform - chance) / (1.0 - chance)
    return quantile(residual(p, q), left), False
