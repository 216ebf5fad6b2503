"""A drafter that is another, quicker model of the same tokens."""

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

    from backend.decoding.model import LanguageModel, Session


class ModelDrafter(Drafter):
    """Writes ahead with `model`, up to `length` tokens, through a cache of its own.

    A draft ends earlier behind the token at which the chance that one of its tokens is refused,
    as the draft's own chances of them tell it, passes `refusal`.
    """

    def __init__(self, model: LanguageModel, length: int, refusal: float = 1.0) -> None:
        super().__init__()
        self.model, self.length, self.refusal = model, length, refusal
        self._session: Session | None = None
        self._seen: list[int] = []

    def begin(self, writing: Writing) -> None:
        """Open a cache for the text."""
        self._writing = writing
        self._session = self.model.session(1, writing.length + self.length)
        self._seen = []
        self._draws = np.random.default_rng(writing.seed + 1)

    @torch.inference_mode()
    def propose(self, tokens: Sequence[int], limit: int) -> Draft:
        """What the second model would write; drawn, where the first one draws."""
        session, most = self._session, min(limit, self.length)
        if session is None or most < 1:
            return Draft()
        logits = self._caught_up(tokens)
        most = min(most, 1 + session.croppable())
        drafted: list[int] = []
        drawn: list[NDArray[np.float64]] = []
        temperature, kept = self._writing.temperature, 1.0
        while True:
            q = chances(logits, temperature or 1.0) if temperature or self.refusal < 1 else None
            if temperature:
                drawn.append(q)
                drafted.append(quantile(q, float(self._draws.random())))
            else:
                drafted.append(int(choose(logits)))
            if q is not None:
                kept *= float(q[drafted[-1]])
            # the token that tells is kept: one that is drawn and taken back would bend the chances
            if len(drafted) >= most or 1 - kept > self.refusal:
                break
            logits = self._feed(drafted[-1:])
            self._seen.append(drafted[-1])
        return Draft.chain(drafted, drawn if temperature else None)

    def _caught_up(self, tokens: Sequence[int]) -> torch.Tensor:
        """Logits [V] after a text, of which only what is new is fed."""
        session = self._session
        same = _shared(self._seen, tokens[:-1])
        if session.length > same:
            session.crop(same)
        logits = self._feed(tokens[same:])
        self._seen = list(tokens)
        return logits

    def _feed(self, tokens: Sequence[int]) -> torch.Tensor:
        fed = torch.tensor([list(tokens)], device=self.model.device)
        return self._session.read(fed)[0]


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading tokens two texts share."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))
