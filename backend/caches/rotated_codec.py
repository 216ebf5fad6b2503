"""How many bits rotated keys and values take, and in what order a model's channels are rotated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.caches.codecs import code_bits
from backend.caches.seen import MOST_WINDOWS, FittedCodec

if TYPE_CHECKING:
    from torch import Tensor

    from backend.caches.base import LayerCache
    from backend.caches.seen import Look


@dataclass(frozen=True)
class RotatedCodec(FittedCodec):
    """Code bits of keys and values, channels that share a scale, heads rotated together, tokens.

    Attributes:
        key_bits: of a key's code.
        value_bits: of a value's code.
        group_size: most channels of a token that share a scale and an offset.
        together: most heads whose channels are rotated as one.
        chunk: tokens that leave the window together.
        window: newest tokens kept exact.
        sinks: tokens of the first chunk kept exact.
    """

    key_bits: int
    value_bits: int
    group_size: int
    together: int
    chunk: int
    window: int
    sinks: int

    def layer(self, index: int) -> LayerCache:
        """An empty cache for layer `index`."""
        from backend.caches.rotated import RotatedLayerCache

        return RotatedLayerCache(self, index)

    def bits(self, heads: int, head_dim: int) -> float:
        """Codes, scales and offsets; window, sinks and the order of channels come on top."""
        group = group_of(heads * head_dim, self.group_size)
        shared = 32 / group
        return (code_bits(self.key_bits, group) + code_bits(self.value_bits, group)) / 2 + shared

    def learn(self, look: Look) -> dict[str, Tensor]:
        """The order of each layer's channels by the sum of what its keys hold there."""
        sums: dict[int, Tensor] = {}
        for window in look.windows[:MOST_WINDOWS].split(1):
            for layer, seen in look(window).items():
                found = seen.unturned().float().sum((0, 2)).flatten()
                sums[layer] = sums[layer] + found if layer in sums else found
        return {f"{layer}.order": one.argsort().short() for layer, one in sums.items()}


def group_of(channels: int, most: int) -> int:
    """Channels of a group: the most up to `most` of which a whole number fills a token."""
    return next(size for size in range(min(most, channels), 0, -1) if channels % size == 0)


def block_of(channels: int, most: int) -> int:
    """Channels rotated as one: the largest power of two up to `most` that divides a token's."""
    size = channels & -channels
    while size > most:
        size //= 2
    return size
