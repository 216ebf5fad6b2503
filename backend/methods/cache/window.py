"""LM-Infinite: the first tokens and the newest, nothing between."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import caches
from backend.errors import OutOfReachError
from backend.methods.base import CacheMethod, Stage, setting

if TYPE_CHECKING:
    from backend.caches.codecs import Codec

SLACK = 16  # tokens that leave together


@dataclass(frozen=True)
class Window(CacheMethod):
    """Keep the first tokens and a window of the newest, and forget all between.

    Attention rests on the first tokens even where they say little; with them kept, a window is
    enough to go on writing for ever. What lies between is really dropped: a fact told there is
    gone. Tokens keep their positions; the first ones are never further away than the distance
    limit, so that no distance comes up that training did not show.
    """

    stage = Stage.CACHE
    paper = "arXiv 2308.16137"
    claim = "2.72x faster decoding, and text far beyond the trained length stays fluent."
    limits = (
        "The budget is met at the context given, and less is held of longer ones. Within the "
        "trained length the distance limit does nothing; without rotary positions it cannot act. "
        "Layers whose cache is a sliding window of the model's own stay as they are."
    )

    bits: float = setting(
        6.0, "Bits held per key and value number of a full context.", low=1.0, high=16.0
    )
    first: int = setting(4, "First tokens that are never dropped.", low=0, high=128)
    context: int = setting(
        512, "Tokens of context at which the budget is met.", choices=(512, 1024, 2048, 4096, 8192)
    )
    limit: int = setting(4096, "Largest distance that attention sees.", low=64, high=131072)

    def codec(self, heads: int, head_dim: int) -> Codec:  # noqa: ARG002 - tokens, not numbers
        """The widest window within the budget.

        Raises:
            OutOfReachError: the first tokens leave no room for a window.
        """
        window = int(self.bits / 16 * self.context) - self.first - SLACK + 1
        if window < 1:
            reach = math.ceil(1600 * (self.first + SLACK) / self.context) / 100
            raise OutOfReachError(
                f"{self.key()} keeps {self.first} first tokens, and drops {SLACK} at a time, which "
                f"leaves no window in {self.bits:g} bits of {self.context} tokens; ask for "
                f"{reach:.2f} bits or more, a longer context or fewer first tokens."
            )
        limit = max(self.limit, window)
        return caches.WindowCodec(self.first, window, SLACK, limit, self.context)
