"""A drafter that is the model itself with some halves of its blocks left out.

SWIFT, arXiv 2410.06916. Which halves is found while decoding: sets are tried on what was just
written, at random and where a linear model of the tries so far hopes for more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from backend.decoding.drafter import Draft, Drafter, Writing
from backend.decoding.greedy import choose
from backend.decoding.sampling import chances, quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from backend.decoding.model import LanguageModel

FEWEST_WRITTEN = 8  # tokens, before a set is judged by them
GOOD_ENOUGH = 0.95  # share of tokens that a set gets right, from which the search ends
EVERY_GUIDED = 5  # tries, of which one is guided by the others


class SkippingDrafter(Drafter):
    """Drafts through the model's own cache, so that it holds nothing more.

    Args:
        model: that verifies, and drafts without its halves.
        share: of the halves that are left out.
        length: most tokens of a draft.
        confidence: a draft ends before a token less likely than this.
        tries: sets that are tried before the search ends.
        context: tokens that a set is tried on.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        share: float,
        length: int,
        confidence: float,
        tries: int,
        context: int,
    ) -> None:
        super().__init__()
        self.model, self.length, self.confidence, self.context = model, length, confidence, context
        count = len(model.skippable)
        self.count = min(count, max(1, round(share * count))) if count else 0
        self.skipped = _evenly(count, self.count)
        self.matched = -1.0
        self.tried: list[tuple[NDArray[np.bool_], float]] = []
        self._left = tries
        self._random = np.random.default_rng(0)
        self._writing: Writing | None = None
        self._written = 0

    @property
    def names(self) -> list[str]:
        """The halves that are left out now."""
        return [name for name, gone in zip(self.model.skippable, self.skipped, strict=True) if gone]

    def begin(self, writing: Writing) -> None:
        """Draft through this session from now on; what was found of sets stays."""
        self._writing, self._written = writing, writing.session.length
        self._draws = np.random.default_rng(writing.seed + 1)

    @torch.inference_mode()
    def propose(self, tokens: Sequence[int], limit: int) -> Draft:
        """What the shallower model would write, as far as it is sure."""
        writing, most = self._writing, min(limit, self.length)
        if writing is None or most < 1 or not self.count:
            return Draft()
        self._search(tokens)
        session, before = writing.session, writing.session.length
        drafted: list[int] = []
        drawn: list[NDArray[np.float64]] = []
        last = tokens[-1]
        with self.model.without(self.names):
            while len(drafted) < most:
                fed = torch.tensor([[last]], device=self.model.device)
                logits = session.feed(fed)[0, -1]
                p = chances(logits, writing.temperature or 1.0)
                if p.max() < self.confidence and drafted:
                    break
                if writing.temperature:
                    last = quantile(p, float(self._draws.random()))
                    drawn.append(p)
                else:
                    last = int(choose(logits))
                drafted.append(last)
        session.crop(before)
        return Draft.chain(drafted, drawn if writing.temperature else None)

    def _search(self, tokens: Sequence[int]) -> None:
        """Try another set on the tokens just written; keep it if it gets more of them right."""
        written = len(tokens) - self._written
        if self._left < 1 or written < FEWEST_WRITTEN or self.matched >= GOOD_ENOUGH:
            return
        self._left -= 1
        if self.matched < 0:
            self.matched = self._match(self.skipped, tokens, written)
            self.tried.append((self.skipped, self.matched))
            return
        guided = len(self.tried) % EVERY_GUIDED == 0
        candidate = self._hopeful() if guided else self._swapped()
        matched = self._match(candidate, tokens, written)
        self.tried.append((candidate, matched))
        if matched > self.matched:
            self.skipped, self.matched = candidate, matched

    def _match(self, skipped: NDArray[np.bool_], tokens: Sequence[int], written: int) -> float:
        """Share of the last tokens that the model without these halves would have written."""
        part = list(tokens[-self.context :])
        names = [name for name, gone in zip(self.model.skippable, skipped, strict=True) if gone]
        with self.model.without(names):
            logits = self.model.logits(torch.tensor([part], device=self.model.device))[0]
        count = min(written, len(part) - 1)
        guessed = choose(logits[-count - 1 : -1]).tolist()
        return float(np.mean([a == b for a, b in zip(guessed, part[-count:], strict=True)]))

    def _swapped(self) -> NDArray[np.bool_]:
        """The best set with one or two halves exchanged for others."""
        candidate = self.skipped.copy()
        inside, outside = np.flatnonzero(candidate), np.flatnonzero(~candidate)
        count = min(int(self._random.integers(1, 3)), len(inside), len(outside))
        candidate[self._random.choice(inside, count, replace=False)] = False
        candidate[self._random.choice(outside, count, replace=False)] = True
        return candidate

    def _hopeful(self) -> NDArray[np.bool_]:
        """The set that is best under one draw of what each half costs, given all tries.

        Bayesian linear regression with a unit prior on the cost of leaving out a half.
        """
        sets = np.array([each for each, _ in self.tried], np.float64)
        scores = np.array([score for _, score in self.tried])
        noise = 0.05**2
        precision = sets.T @ sets / noise + np.eye(sets.shape[1])
        covariance = np.linalg.inv(precision)
        mean = covariance @ (sets.T @ (scores - 1)) / noise
        drawn = self._random.multivariate_normal(mean, covariance, method="cholesky")
        candidate = np.zeros(sets.shape[1], np.bool_)
        candidate[np.argsort(-drawn)[: self.count]] = True
        return candidate


def _evenly(total: int, count: int) -> NDArray[np.bool_]:
    """`count` of `total` places, spread evenly, the last first."""
    chosen = np.zeros(total, np.bool_)
    if count:
        chosen[np.floor((np.arange(count) + 0.5) * total / count).astype(int)] = True
    return chosen
