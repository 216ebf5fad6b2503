"""CSKV: keys and values along the few directions that they fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import caches
from backend.methods.base import CacheMethod, Needs, Stage, setting
from backend.methods.cache._codes import widest

if TYPE_CHECKING:
    from backend.caches.codecs import Codec


@dataclass(frozen=True)
class Cskv(CacheMethod):
    """Keep of each token only where its keys and values lie along a layer's few main directions.

    The matrices that make keys and values are taken as products of two thin ones, and what is
    cached is what the first of them gives. The factors are those that rebuild the keys, before
    positions are turned in, and the values of the calibration text best, all heads of a layer
    together. The newest tokens stay as they are in a second branch; further back the numbers
    along the directions may be codes, of keys by direction and of values by token.
    """

    stage = Stage.CACHE
    needs = Needs.TEXT
    paper = "arXiv 2409.10593"
    claim = "80 % smaller caches of long contexts, 95 % with 4-bit codes."
    limits = (
        "The directions are held beside every text and counted there, which weighs in short ones. "
        "Rebuilding keys takes time at every step. Needs a model whose attention can be named. "
        "Layers whose cache is a sliding window of the model's own stay as they are."
    )

    bits: float = setting(
        8.0, "Bits per key and value number, codes' scales counted.", low=1.0, high=16.0
    )
    held: int = setting(16, "Bits of a number along a direction.", choices=(4, 8, 16))
    chunk: int = setting(32, "Tokens that leave the window together.", choices=(16, 32, 64, 128))
    window: int = setting(32, "Newest tokens kept as they are.", low=0, high=1024)

    def codec(self, heads: int, head_dim: int) -> Codec:
        """As many directions as the budget pays for, of keys never fewer than of values.

        Raises:
            OutOfReachError: one direction of each takes more than the budget.
        """
        rest = self.held, self.chunk, self.window
        totals = range(2 * heads * head_dim, 1, -1)
        codecs = (caches.ReducedCodec(-(-total // 2), total // 2, *rest) for total in totals)
        return widest(self, codecs, heads, head_dim)
