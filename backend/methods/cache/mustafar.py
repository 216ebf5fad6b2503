"""Mustafar: keys and values without their smallest channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import caches
from backend.methods.base import CacheMethod, Stage, setting
from backend.methods.cache._codes import widest

if TYPE_CHECKING:
    from backend.caches.codecs import Codec


@dataclass(frozen=True)
class Mustafar(CacheMethod):
    """Leave out the smallest channels of every key and value, each token its own.

    A token keeps its largest channels behind a bitmap of one bit a channel, and attention is
    computed on that form without laying it out. Unstructured, so that a loud channel is kept
    where it is loud; the newest tokens stay dense.
    """

    stage = Stage.CACHE
    paper = "arXiv 2505.22913"
    claim = "70 % sparsity of keys and values; up to 2.23x tokens a second."
    limits = (
        "Saves nothing above 15 of 16 bits. Needs a model whose attention can be named. Layers "
        "whose cache is a sliding window of the model's own stay as they are."
    )

    bits: float = setting(6.0, "Bits per key and value number, bitmap counted.", low=1.5, high=17.0)
    chunk: int = setting(32, "Tokens that are pruned together.", choices=(16, 32, 64))
    window: int = setting(32, "Newest tokens kept dense.", low=0, high=1024)

    def codec(self, heads: int, head_dim: int) -> Codec:
        """As many channels as the budget holds, keys never fewer than values.

        Raises:
            OutOfReachError: one channel and the bitmap take more than the budget.
        """
        return widest(
            self,
            (
                caches.BitmapCodec(-(-total // 2), total // 2, self.chunk, self.window)
                for total in range(2 * head_dim, 1, -1)
            ),
            heads,
            head_dim,
        )
