"""EMS: what matters least is dropped, what matters little is merged into what is alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import caches
from backend.caches.condensed_codec import SLACK, token_bytes
from backend.errors import OutOfReachError
from backend.methods.base import CacheMethod, Stage, setting

if TYPE_CHECKING:
    from backend.caches.codecs import Codec


@dataclass(frozen=True)
class Ems(CacheMethod):
    """Drop the tokens that matter least to a head, and merge the next into those most like them.

    Every sixteen tokens each head weighs what it holds before its window: by the mean attention of
    all tokens that could see it and by that of the newest sixteen, each scaled to its largest.
    The best are kept. The next join the kept token whose key is most alike, weighted by what
    they are worth, if it is alike enough; the rest is dropped. Each head chooses for itself.
    """

    stage = Stage.CACHE
    paper = "arXiv 2412.08521"
    claim = "95 % of retrieval with under 2 % of the context; up to 10.75x throughput."
    limits = (
        "The budget is met at the context given, sums of attention counted, and less is held of "
        "longer ones. How the two scores are added is taken from the paper's words, its kernel is "
        "not there. Needs a model whose attention can be named. Layers whose cache is a sliding "
        "window of the model's own stay as they are."
    )

    bits: float = setting(
        6.0, "Bits held per key and value number of a full context.", low=1.0, high=16.0
    )
    window: int = setting(32, "Newest tokens kept as they are.", low=0, high=1024)
    merged: float = setting(
        1.0, "Tokens that may be merged, for each that is kept.", low=0.0, high=8.0
    )
    alike: float = setting(0.6, "Least cosine of two keys that are merged.", low=0.0, high=1.0)
    context: int = setting(
        512, "Tokens of context at which the budget is met.", low=128, high=131072
    )

    def codec(self, heads: int, head_dim: int) -> Codec:  # noqa: ARG002 - each head alone
        """As many tokens before the window as the budget holds.

        Raises:
            OutOfReachError: the window takes all of it.
        """
        numbers, size = 2 * head_dim * self.context, 8 * token_bytes(head_dim)
        beside = self.window + SLACK - 1
        kept = int(self.bits * numbers / size) - beside
        if kept < 1:
            reach = math.ceil(100 * (beside + 1) * size / numbers) / 100
            raise OutOfReachError(
                f"{self.key()} keeps a window of {self.window} and looks every {SLACK} tokens, "
                f"which leaves nothing in {self.bits:g} bits of {self.context} tokens with heads "
                f"of {head_dim}; ask for {reach:.2f} bits or more, a longer context or a smaller "
                "window."
            )
        return caches.CondensedCodec(kept, self.window, self.merged, self.alike, self.context)
