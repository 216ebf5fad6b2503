"""Keys and values as integers: keys by channel, values by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import caches
from backend.methods.base import CacheMethod, Stage, setting
from backend.methods.cache._codes import code_widths, widest

if TYPE_CHECKING:
    from backend.caches.codecs import Codec


@dataclass(frozen=True)
class KvInt(CacheMethod):
    """Round keys by channel and values by token, and keep the newest tokens exact.

    Keys have a few channels with large values in every token, so a channel gets its own scale
    over a chunk of tokens; values have none, so a token gets its own scale. The newest tokens,
    which attention looks at most, stay as they are until a chunk of them is full.
    """

    stage = Stage.CACHE
    paper = "arXiv 2402.02750"
    claim = "2-bit caches: 2.6x less peak memory, almost the same quality."
    limits = "Layers whose cache is a sliding window of the model's own stay as they are."

    bits: float = setting(
        5.0, "Bits per key and value number, scales and offsets counted.", low=2.25, high=10.0
    )
    group_size: int = setting(32, "Tokens in a chunk.", choices=(16, 32, 64, 128))
    window: int = setting(32, "Newest tokens kept exact.", low=0, high=1024)
    keys: str = setting(
        "by channel", "What a key's scale spans.", choices=("by channel", "by token")
    )

    def codec(self, heads: int, head_dim: int) -> Codec:
        """The widest codes within the budget, keys never coarser than values.

        Raises:
            OutOfReachError: two-bit codes take more than the budget with heads of this size.
        """
        by_channel = self.keys == "by channel"
        return widest(
            self,
            (
                caches.IntegerCodec(*bits, self.group_size, self.window, by_channel)
                for bits in code_widths()
            ),
            heads,
            head_dim,
        )
