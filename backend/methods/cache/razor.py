"""RazorAttention: the whole text for the heads that look things up, a window for the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import caches
from backend.caches.heads_codec import ROOM
from backend.errors import OutOfReachError
from backend.methods.base import CacheMethod, Stage, setting

if TYPE_CHECKING:
    from backend.caches.codecs import Codec

SLACK = 16  # tokens that leave together
MOST = 0.5  # of the budget that whole heads may take


@dataclass(frozen=True)
class Razor(CacheMethod):
    """Keep the whole text for the heads that look things up, and a window for all others.

    Few heads find a token again that stood far before. They are told from how the compressed
    model reads random tokens several times over: echo heads look at the earlier places of the
    token they stand at, induction heads at what followed it there. All other heads keep the first
    tokens, the newest, and one more that stands for all that left: the mean of their keys and of
    their values, with the weight of as many tokens.
    """

    stage = Stage.CACHE
    paper = "arXiv 2407.15891"
    claim = "Over 70 % smaller caches without training, the same accuracy."
    limits = (
        "The budget is met at the context given; heads kept whole go on growing, and in models "
        "with few of them a small share is none at all. They take at most half of the budget. "
        "Needs a model whose attention can be named. Layers whose cache is a sliding window of "
        "the model's own stay as they are."
    )

    bits: float = setting(
        6.0, "Bits held per key and value number of a full context.", low=1.0, high=16.0
    )
    echo: float = setting(0.01, "Share of heads kept whole as echo heads.", low=0.0, high=0.5)
    induction: float = setting(
        0.14, "Share of heads kept whole as induction heads.", low=0.0, high=0.5
    )
    first: int = setting(4, "First tokens that every head keeps.", low=0, high=128)
    context: int = setting(
        512, "Tokens of context at which the budget is met.", low=128, high=131072
    )

    def codec(self, heads: int, head_dim: int) -> Codec:  # noqa: ARG002 - tokens, not numbers
        """The widest window beside the heads kept whole within the budget.

        Raises:
            OutOfReachError: first tokens and their stand-in leave no room for a window.
        """
        window, echo, induction = self._divided(self.bits)
        if window < 1:
            enough = (step / 100 for step in range(100, 1601) if self._divided(step / 100)[0] >= 1)
            raise OutOfReachError(
                f"{self.key()} keeps {self.first} first tokens, and drops {SLACK} at a time, which "
                f"leaves no window in {self.bits:g} bits of {self.context} tokens; ask for "
                f"{next(enough):.2f} bits or more, a longer context or fewer first tokens."
            )
        return caches.HeadsCodec(echo, induction, self.first, window, SLACK, self.context)

    def _divided(self, bits: float) -> tuple[int, float, float]:
        """The window that a budget leaves, and the shares of heads kept whole."""
        budget, share = bits / 16, self.echo + self.induction
        part = min(1.0, MOST * budget / share) if share else 0.0
        rest = (budget - part * share) / (1 - part * share)
        window = int(rest * self.context + 1e-9) - self.first - SLACK + 1 - ROOM
        return window, part * self.echo, part * self.induction
