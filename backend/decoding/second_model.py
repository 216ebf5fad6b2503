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
    """Writes ahead with `model`, up to `length` tokens, through a cache of its own."""

    def __init__(self, model: LanguageModel, length: int) -> None:
        super().__init__()
        self.model, self.length = model, length
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
        same = _shared(self._seen, tokens[:-1])
        if session.length > same:
            session.crop(same)
        logits = self._feed(tokens[same:])
        self._seen = list(tokens)
        most = min(most, 1 + session.croppable())
        drafted: list[int] = []
        drawn: list[NDArray[np.float64]] = []
        temperature = self._writing.temperature
        while True:
            if temperature:
                drawn.append(chances(logits, temperature))
                drafted.append(quantile(drawn[-1], float(self._draws.random())))
            else:
                drafted.append(int(choose(logits)))
            if len(drafted) >= most:
                break
            logits = self._feed(drafted[-1:])
            self._seen.append(drafted[-1])
        return Draft.chain(drafted, drawn if temperature else None)

    def _feed(self, tokens: Sequence[int]) -> torch.Tensor:
        fed = torch.tensor([list(tokens)], device=self.model.device)
        return self._session.feed(fed)[0, -1]


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading tokens two texts share."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))
