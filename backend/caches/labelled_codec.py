"""How many bits keys with label channels take, and which channels of a model's heads these are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from backend.caches.codecs import IntegerCodec
from backend.caches.seen import MOST_WINDOWS, FittedCodec

if TYPE_CHECKING:
    from torch import Tensor

    from backend.caches.base import LayerCache
    from backend.caches.seen import Look


@dataclass(frozen=True)
class LabelledCodec(FittedCodec):
    """Label channels, how many tokens are attended, and how all else is held.

    Attributes:
        channels: of each head's keys that find tokens, kept in 16 bits.
        share: of the tokens seen that a head attends.
        least: tokens that it attends at least.
        within: codes of whole keys and of values; None for 16 bits, the labels then being a part
            of the keys and no number held twice.
    """

    turns: ClassVar[bool] = False

    channels: int
    share: float
    least: int
    within: IntegerCodec | None = None

    def layer(self, index: int) -> LayerCache:
        """An empty cache for layer `index`."""
        from backend.caches.labelled import LabelledLayerCache

        return LabelledLayerCache(self, index)

    def bits(self, heads: int, head_dim: int) -> float:
        """Sixteen, or what codes take and the labels beside them."""
        if self.within is None:
            return 16.0
        return self.within.bits(heads, head_dim) + 16 * min(self.channels, head_dim) / head_dim / 2

    def learn(self, look: Look) -> dict[str, Tensor]:
        """Each layer's channels, [heads, channels], those first that add most to products.

        A channel adds the sum of all queries' sizes there times that of all keys' (with positions
        turned in, as both are held); the queries of a group count together.
        """
        sums: dict[int, list[Tensor]] = {}
        for window in look.windows[:MOST_WINDOWS].split(1):
            for layer, seen in look(window).items():
                asked = seen.queries.grouped(seen.keys.shape[1])
                found = [
                    asked.float().abs().sum((0, 2, 3)),
                    seen.keys.float().abs().sum((0, 2)),
                ]
                before = sums.get(layer, [0.0, 0.0])
                sums[layer] = [one + more for one, more in zip(before, found, strict=True)]
        return {
            f"{layer}.channels": (asked * keys).argsort(dim=1, descending=True, stable=True).short()
            for layer, (asked, keys) in sums.items()
        }
