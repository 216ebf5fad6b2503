"""ZipCache: wide codes for the tokens that matter, narrow ones for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import caches
from backend.methods.base import CacheMethod, Stage, setting
from backend.methods.cache._codes import widest

if TYPE_CHECKING:
    from backend.caches.codecs import Codec


@dataclass(frozen=True)
class Zipcache(CacheMethod):
    """Give more bits to the tokens that attention looks at, measured fairly.

    One token in ten keeps its query as a probe. When a chunk leaves the exact window, a token's
    weight is the attention the probes give it divided by how many of them could see it, so that
    early tokens have no head start; each head chooses its own salient tokens. A value's scale
    spans one token, after each channel was divided by the root of its largest size, which takes
    a scale for each token instead of one for every few channels.
    """

    stage = Stage.CACHE
    paper = "arXiv 2405.14256"
    claim = "4.98x smaller caches with 0.38 % lower accuracy on GSM8k."
    limits = (
        "Needs the queries of the model's attention; a model that hands out none is refused. "
        "Layers whose cache is a sliding window of the model's own stay as they are."
    )

    bits: float = setting(
        5.0, "Bits per key and value number, everything counted.", low=2.5, high=10.0
    )
    share: float = setting(0.5, "Share of tokens with the wider codes.", low=0.1, high=0.9)
    chunk: int = setting(64, "Tokens in a chunk.", choices=(32, 64, 128))
    window: int = setting(32, "Newest tokens kept exact.", low=0, high=1024)
    keys: str = setting(
        "by channel", "What a key's scale spans.", choices=("by channel", "by token")
    )

    def codec(self, heads: int, head_dim: int) -> Codec:
        """The widest pair of codes within the budget, one or two bits apart.

        Raises:
            OutOfReachError: two and three bits take more than the budget with heads of this size.
        """
        by_channel = self.keys == "by channel"
        widths = ((total - (total - 1) // 2, (total - 1) // 2) for total in range(15, 4, -1))
        return widest(
            self,
            (
                caches.SalientCodec(high, low, self.share, self.chunk, self.window, by_channel)
                for high, low in widths
            ),
            heads,
            head_dim,
        )
