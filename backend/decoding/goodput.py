"""A drafter that writes as far ahead as pays, by what is accepted and what each call takes.

SmartSpec, arXiv 2406.14066: of all lengths that with the most tokens a second expected is taken,
no draft being one of them. Here for one text at a time; times are measured while writing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from backend.decoding.drafter import Draft, Writing
from backend.decoding.second_model import ModelDrafter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from backend.decoding.model import LanguageModel

NEW = 0.2  # how much the newest measurement counts in a running mean
HOPEFUL = 0.8  # chance of acceptance before anything was seen
AT_FIRST = 4  # tokens of the first draft, which is made to be timed
AGAIN = 16  # calls without a draft, after which one token is tried again


class GoodputDrafter(ModelDrafter):
    """Drafts of the length that promises the most tokens a second, up to `longest`.

    Args:
        model: that drafts.
        longest: most tokens of a draft.
        clock: seconds.
    """

    def __init__(
        self, model: LanguageModel, longest: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__(model, longest)
        self._longest, self._clock = longest, clock
        self.accepted = HOPEFUL
        self.drafting: float | None = None
        self.verifying: dict[int, float] = {}
        self._last: Draft = Draft()
        self._fed, self._resting, self._waiting = 0, 0, 0.0

    def begin(self, writing: Writing) -> None:
        """Open a cache for the text; what was measured stays."""
        super().begin(writing)
        self._last, self._fed = Draft(), 0

    def learn(
        self,
        tokens: Sequence[int],
        logits: torch.Tensor,
        parents: Sequence[int] | None = None,  # noqa: ARG002
    ) -> None:
        """Note how long the model took; a prompt is not a draft."""
        if self._fed:
            logits[-1, 0].item()  # waits for a device that computes by itself
            self.verifying[len(tokens)] = _mixed(
                self.verifying.get(len(tokens)), self._clock() - self._waiting
            )

    def propose(self, tokens: Sequence[int], limit: int) -> Draft:
        """What the second model would write, as far as that pays."""
        self._judge(tokens)
        self.length = min(limit, self._best())
        before = self._clock()
        draft = super().propose(tokens, limit) if self.length else Draft()
        if draft.tokens:
            self.drafting = _mixed(self.drafting, (self._clock() - before) / len(draft.tokens))
        self._last, self._fed = draft, len(tokens)
        self._waiting = self._clock()
        return draft

    def goodput(self, length: int) -> float:
        """Tokens a second that drafts of this length are expected to give.

        A draft is accepted token by token with one chance a, which gives 1 + a + ... + a^length.
        """
        expected = sum(self.accepted**place for place in range(length + 1))
        return expected / (length * (self.drafting or 0.0) + self._verification(length + 1))

    def _best(self) -> int:
        """The length that promises most; now and then one token where nothing pays."""
        if self.drafting is None or not self.verifying:
            return min(AT_FIRST, self._longest)
        best = max(range(self._longest + 1), key=self.goodput)
        self._resting = 0 if best else self._resting + 1
        if self._resting < AGAIN:
            return best
        self._resting = 0
        return 1

    def _judge(self, tokens: Sequence[int]) -> None:
        """Note how much of the last draft the text took over."""
        drafted, written = self._last.tokens, tuple(tokens[self._fed :])
        if not drafted:
            return
        pairs = zip(drafted, written, strict=False)
        kept = next((place for place, (a, b) in enumerate(pairs) if a != b), len(drafted))
        self.accepted = _mixed(self.accepted, kept / min(kept + 1, len(drafted)))

    def _verification(self, tokens: int) -> float:
        """Seconds that the model takes for so many tokens, on the line nearest to what was seen."""
        seen = self.verifying
        if tokens in seen or len(seen) == 1:
            return seen.get(tokens, next(iter(seen.values())))
        slope, start = np.polyfit(list(seen), list(seen.values()), 1)
        return max(float(start + slope * tokens), min(seen.values()))


def _mixed(old: float | None, new: float) -> float:
    """A running mean."""
    return new if old is None else (1 - NEW) * old + NEW * new
