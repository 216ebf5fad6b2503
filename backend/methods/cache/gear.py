"""GEAR: integers, and what rounding lost beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import caches
from backend.methods.base import CacheMethod, Stage, setting
from backend.methods.cache._codes import code_widths, widest

if TYPE_CHECKING:
    from backend.caches.codecs import Codec


@dataclass(frozen=True)
class Gear(CacheMethod):
    """Round keys and values to few bits and hold the error as two thin factors and some outliers.

    A chunk of tokens gives up its outliers, which are held exactly with their places; the rest is
    rounded, keys by channel and values by token. What rounding took away is alike from token to
    token, so two thin factors hold much of it. The newest tokens stay exact until a chunk of
    them is full.
    """

    stage = Stage.CACHE
    paper = "arXiv 2403.05527"
    claim = "Near-lossless 4-bit caches: up to 2.38x throughput, 2.29x less peak memory."
    limits = (
        "Factors and outliers cost bits that short chunks and small heads feel: where not even "
        "two-bit codes fit beside them, the factors get fewer columns. Layers whose cache "
        "is a sliding window of the model's own stay as they are."
    )

    bits: float = setting(
        5.5, "Bits per key and value number, everything counted.", low=2.5, high=12.0
    )
    rank: int = setting(2, "Columns of the two factors of a chunk's error.", low=0, high=16)
    outliers: float = setting(0.02, "Share of entries held apart.", low=0.0, high=0.1)
    chunk: int = setting(128, "Tokens in a chunk.", choices=(32, 64, 128))
    window: int = setting(32, "Newest tokens kept exact.", low=0, high=1024)

    def codec(self, heads: int, head_dim: int) -> Codec:
        """The widest codes beside factors and outliers within the budget.

        Raises:
            OutOfReachError: two-bit codes take more than the budget with heads of this size.
        """
        return widest(
            self,
            (
                caches.CorrectedCodec(*bits, rank, self.outliers, self.chunk, self.window)
                for rank in range(self.rank, min(self.rank, 1) - 1, -1)
                for bits in code_widths()
            ),
            heads,
            head_dim,
        )
