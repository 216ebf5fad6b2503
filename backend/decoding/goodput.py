"""A drafter that writes as far ahead as pays, by what is accepted and what each call takes.

SmartSpec, arXiv 2406.14066: of all lengths that with the most tokens a second expected is taken,
no draft being one of them. Here for one text at a time; times are measured while writing.
"""

from __future__ import annotations

import time
from collections import deque
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from backend.decoding.drafter import Draft, Writing
from backend.decoding.second_model import ModelDrafter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from backend.decoding.model import LanguageModel

NEW = 0.2  # how much the newest draft counts in the share that is accepted
TIMES = 5  # of a measurement, of which the median counts
HOPEFUL = 0.8  # chance of acceptance before anything was seen
AT_FIRST = 4  # tokens of the first draft, which is made to be timed
RESTING = 8  # calls without a draft between two looks at whether one would pay
AGAIN = 64  # calls of one choice until the other is timed again; then twice as many


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
        self.drafting: deque[float] = deque(maxlen=TIMES)
        self.verifying: dict[int, deque[float]] = {}
        self._last: Draft = Draft()
        self._fed, self._waiting = 0, 0.0
        self._drafted, self._alike, self._patience = True, 0, AGAIN

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
            times = self.verifying.setdefault(len(tokens), deque(maxlen=TIMES))
            times.append(self._clock() - self._waiting)

    def propose(self, tokens: Sequence[int], limit: int) -> Draft:
        """What the second model would write, as far as that pays."""
        self._judge(tokens)
        self.length = min(limit, self._best())
        before = self._clock()
        draft = super().propose(tokens, limit) if self.length else Draft()
        if draft.tokens:
            self.drafting.append((self._clock() - before) / len(draft.tokens))
        self._last, self._fed = draft, len(tokens)
        self._waiting = self._clock()
        return draft

    def goodput(self) -> NDArray[np.float64]:
        """Tokens a second that drafts of 0 to `longest` tokens are expected to give.

        A draft is accepted token by token with one chance a, which gives 1 + a + ... + a^length.
        """
        lengths = np.arange(self._longest + 1)
        expected = np.cumsum(self.accepted**lengths)
        drafting = median(self.drafting) if self.drafting else 0.0
        return expected / (lengths * drafting + self._verification(lengths + 1))

    def _best(self) -> int:
        """The length that promises most; now and then the other choice, to be timed again."""
        if not self.drafting:
            return min(AT_FIRST, self._longest)
        resting = not self._drafted and self._alike < self._patience and self._alike % RESTING
        if 1 not in self.verifying or resting:
            self._alike += bool(resting)
            return 0
        best = int(self.goodput().argmax())
        if bool(best) != self._drafted:
            self._drafted, self._alike, self._patience = bool(best), 0, AGAIN
        self._alike += 1
        if self._alike <= self._patience:
            return best
        self._alike, self._patience = 0, 2 * self._patience
        return 0 if best else 1

    def _judge(self, tokens: Sequence[int]) -> None:
        """Note how much of the last draft the text took over."""
        drafted, written = self._last.tokens, tuple(tokens[self._fed :])
        if not drafted:
            return
        pairs = zip(drafted, written, strict=False)
        kept = next((place for place, (a, b) in enumerate(pairs) if a != b), len(drafted))
        self.accepted += NEW * (kept / min(kept + 1, len(drafted)) - self.accepted)

    def _verification(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds that the model takes for so many tokens, on the line nearest to what was seen."""
        sizes = np.array(list(self.verifying))
        seconds = np.array([median(times) for times in self.verifying.values()])
        middle, mean = sizes.mean(), seconds.mean()
        spread = float(((sizes - middle) ** 2).sum())
        slope = float(((sizes - middle) * (seconds - mean)).sum()) / spread if spread else 0.0
        found = np.maximum(mean + max(slope, 0.0) * (tokens - middle), seconds.min())
        for size, known in zip(sizes, seconds, strict=True):
            found[tokens == size] = known
        return found
