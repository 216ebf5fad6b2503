"""The accept or resample rule of speculative sampling, on plain probability vectors.

Source: Leviathan et al., arXiv 2211.17192, theorem 1: what comes out is distributed as `p`,
whatever `q` is. No model is called here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


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
    cumulative = np.cumsum(residual(p, q))
    token = int(np.searchsorted(cumulative, left * cumulative[-1], side="right"))
    return min(token, len(cumulative) - 1), False
