"""Several tokens drawn independently from one distribution, of which one or none is kept.

K-SEQ of SpecTr, Sun et al., arXiv 2310.15141, algorithm 2: each draft in turn is kept with chance
min(1, p / (d q)); the divisor d is the least with which what comes out is distributed as `p`.
Here `p` are the chances of the model that is verified against, `q` those of the draft, and no
model is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

HALVINGS = 60


def divisor(p: ArrayLike, q: ArrayLike, count: int) -> float:
    """The least divisor, from 1 to `count`, with which `count` drafts leave `p` as it is.

    With b(d) the sum of min(q, p / d), the chance that one draft is kept, it solves
    1 - (1 - b)^count = d b: all drafts together offer no token more often than `p` has it.
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    low, high = 1.0, float(count)
    for _ in range(HALVINGS if count > 1 else 0):
        middle = (low + high) / 2
        one = float(np.minimum(q, p / middle).sum())
        offers_more = 1 - (1 - one) ** count > middle * one
        low, high = (middle, high) if offers_more else (low, middle)
    return high


def kept(p: ArrayLike, q: ArrayLike, count: int) -> NDArray[np.float64]:
    """Chance that each token [V] comes out as one of `count` drafts."""
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    once = np.minimum(q, p / divisor(p, q, count))
    one = float(once.sum())
    return once if one <= 0 else once * (1 - (1 - one) ** count) / one


def emitted(p: ArrayLike, q: ArrayLike, count: int) -> NDArray[np.float64]:
    """Distribution [V] of what comes out: a draft that is kept, or one in place of all."""
    drafted = kept(p, q, count)
    rest = residual(p, q, count)
    return drafted + max(0.0, 1.0 - float(drafted.sum())) * rest


def residual(p: ArrayLike, q: ArrayLike, count: int) -> NDArray[np.float64]:
    """The distribution [V] to draw from where no draft is kept."""
    p = np.asarray(p, np.float64)
    rest = np.maximum(p - kept(p, q, count), 0.0)
    total = rest.sum()
    return rest / total if total > 0 else p / p.sum()
