"""RotateKV: codes of keys and values that a rotation has spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import caches
from backend.methods.base import CacheMethod, Needs, Stage, setting
from backend.methods.cache._codes import code_widths, widest

if TYPE_CHECKING:
    from backend.caches.codecs import Codec


@dataclass(frozen=True)
class Rotatekv(CacheMethod):
    """Rotate keys and values so that no channel stands out, and round what comes of it.

    Loud channels widen the range of a token's codes. Keys are taken before their positions are
    turned in, their channels put in the order that calibration found, so that channels alike in
    what they always hold lie together, and a Walsh-Hadamard transform spreads them, over several
    heads at once; values are rotated head by head. A scale spans channels of one token. All of
    it is undone exactly when attention reads. The tokens on which attention rests stay exact.
    """

    stage = Stage.CACHE
    needs = Needs.TEXT
    paper = "arXiv 2501.16383"
    claim = "2-bit caches with less than 0.3 more perplexity, 3.97x less peak memory."
    limits = (
        "Keys are turned back to their positions at every step, which takes time. The tokens that "
        "attention rests on are told by their small values, not by the model's activations. "
        "Needs a model whose attention can be named; without rotary positions keys are rotated "
        "as they are. Layers whose cache is a sliding window of the model's own stay as they are."
    )

    bits: float = setting(
        4.5, "Bits per key and value number, scales and offsets counted.", low=2.125, high=12.0
    )
    group_size: int = setting(
        128, "Most channels of a token that share a scale.", choices=(32, 64, 128)
    )
    together: int = setting(4, "Most heads rotated as one.", choices=(1, 2, 4, 8))
    chunk: int = setting(32, "Tokens in a chunk.", choices=(16, 32, 64, 128))
    window: int = setting(32, "Newest tokens kept exact.", low=0, high=1024)
    sinks: int = setting(4, "Tokens of the first chunk kept exact.", low=0, high=16)

    def codec(self, heads: int, head_dim: int) -> Codec:
        """The widest codes within the budget, keys never coarser than values.

        Raises:
            OutOfReachError: two-bit codes take more than the budget with heads of this size.
        """
        rest = self.group_size, self.together, self.chunk, self.window, self.sinks
        codecs = (caches.RotatedCodec(*bits, *rest) for bits in code_widths())
        return widest(self, codecs, heads, head_dim)
