"""How keys and values are to be held: what a cache of each kind takes, and a fresh one for a layer.

Counting needs no torch, so that a budget is refused before anything is loaded; the caches
themselves are imported when the first is made.
"""

from __future__ import annotations

import abc
import random
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from backend.caches.base import LayerCache

PROBES = 0.05  # of a chunk's tokens: its last, and as many others


class Codec(abc.ABC):
    """How many bits a cache takes, and a fresh one for each layer."""

    context: int | None = None
    """Tokens at which a cache that stops growing meets its budget; None for one that grows."""

    turns: ClassVar[bool] = False
    """Whether its caches move states to other positions, by the model's rotary embedding."""

    @abc.abstractmethod
    def layer(self, index: int) -> LayerCache:
        """An empty cache for layer `index`."""

    @abc.abstractmethod
    def bits(self, heads: int, head_dim: int) -> float:
        """Bits per number that each further token adds once the window is full."""

    def on_gpu(self, head_dim: int) -> Codec:  # noqa: ARG002 - most have one way alone
        """The same, its caches asked by an operation of a GPU where there is one."""
        return self


@dataclass(frozen=True)
class IntegerCodec(Codec):
    """Code bits of keys and values, tokens in a chunk, and tokens kept exact."""

    key_bits: int
    value_bits: int
    group_size: int
    window: int
    keys_by_channel: bool = True
    in_words: bool = False
    """Whether codes lie as an operation for a GPU takes them."""

    def layer(self, index: int) -> LayerCache:  # noqa: ARG002 - all layers alike
        """An empty cache."""
        from backend.caches.integer import IntegerLayerCache
        from backend.caches.slotted import SlottedLayerCache

        return SlottedLayerCache(self) if self.in_words else IntegerLayerCache(self)

    def on_gpu(self, head_dim: int) -> Codec:
        """The same in words, where heads and widths fill them."""
        fits = head_dim >= 16 and head_dim & (head_dim - 1) == 0 and self.group_size >= 16
        known = {self.key_bits, self.value_bits} <= {2, 4, 8}
        return replace(self, in_words=True) if fits and known else self

    def bits(self, heads: int, head_dim: int) -> float:  # noqa: ARG002 - a scale for each head
        """Codes, scales and offsets; the exact window is a fixed cost on top."""
        shared = self.group_size if self.keys_by_channel else head_dim
        keys = code_bits(self.key_bits, head_dim) + 32 / shared
        values = code_bits(self.value_bits, head_dim) + 32 / head_dim
        return (keys + values) / 2


@dataclass(frozen=True)
class CorrectedCodec(Codec):
    """Code bits of keys and values, rank of the error, share of outliers, chunk and window."""

    key_bits: int
    value_bits: int
    rank: int
    outliers: float
    chunk: int
    window: int

    def layer(self, index: int) -> LayerCache:  # noqa: ARG002 - all layers alike
        """An empty cache."""
        from backend.caches.corrected import CorrectedLayerCache

        return CorrectedLayerCache(self)

    def apart(self, head_dim: int) -> int:
        """Outliers of one head's chunk."""
        return round(self.outliers * self.chunk * head_dim)

    def bits(self, heads: int, head_dim: int) -> float:  # noqa: ARG002 - each head alone
        """Codes, scales, factors, outliers with their places; the exact window comes on top."""
        numbers = self.chunk * head_dim
        rank = min(self.rank, head_dim)
        keys = code_bits(self.key_bits, head_dim) + 32 / self.chunk
        values = code_bits(self.value_bits, head_dim) + 32 / head_dim
        factors = 16 * rank * (self.chunk + head_dim) / numbers
        return (keys + values) / 2 + factors + 32 * self.apart(head_dim) / numbers


@dataclass(frozen=True)
class SalientCodec(Codec):
    """Bits of salient and of other tokens, share of the salient, chunk, and exact window."""

    high_bits: int
    low_bits: int
    share: float
    chunk: int
    window: int
    keys_by_channel: bool = True

    def layer(self, index: int) -> LayerCache:  # noqa: ARG002 - all layers alike
        """An empty cache."""
        from backend.caches.salient import SalientLayerCache

        return SalientLayerCache(self)

    @property
    def salient(self) -> int:
        """Tokens of a chunk that get the wider codes."""
        return round(self.share * self.chunk)

    @cached_property
    def probes(self) -> frozenset[int]:
        """Places in a chunk whose queries are kept: the last ones, and others drawn once."""
        count = max(1, round(PROBES * self.chunk))
        others = random.Random(self.chunk).sample(range(self.chunk - count), count)
        return frozenset([*others, *range(self.chunk - count, self.chunk)])

    def bits(self, heads: int, head_dim: int) -> float:  # noqa: ARG002 - each head alone
        """Codes, scales, channels' divisors and marks; window and probes come on top."""
        parts = ((self.high_bits, self.salient), (self.low_bits, self.chunk - self.salient))
        codes = sum(code_bits(bits, head_dim) * count for bits, count in parts) / self.chunk
        ranges = 32 / head_dim
        keys = 32 * len(parts) / self.chunk if self.keys_by_channel else ranges + 16 / self.chunk
        values = ranges + 16 / self.chunk
        marks = 8 * -(-self.chunk // 8) / (2 * self.chunk * head_dim)
        return codes + (keys + values) / 2 + marks


@dataclass(frozen=True)
class BitmapCodec(Codec):
    """Channels kept of keys and of values, tokens in a chunk, and tokens kept dense."""

    key_channels: int
    value_channels: int
    chunk: int
    window: int

    def layer(self, index: int) -> LayerCache:  # noqa: ARG002 - all layers alike
        """An empty cache."""
        from backend.caches.bitmap import BitmapLayerCache

        return BitmapLayerCache(self)

    def bits(self, heads: int, head_dim: int) -> float:  # noqa: ARG002 - each head alone
        """Kept channels and the bitmap; the dense window is a fixed cost on top."""
        kept = 16 * (self.key_channels + self.value_channels) / 2
        return kept / head_dim + bitmap_bits(head_dim)


@dataclass(frozen=True)
class WindowCodec(Codec):
    """First tokens, how far a token sees back, how many leave together, largest distance, context.

    Tokens leave together so that drafts can be taken back without a trace.
    """

    first: int
    window: int
    slack: int
    limit: int
    context: int

    turns: ClassVar[bool] = True

    def layer(self, index: int) -> LayerCache:  # noqa: ARG002 - all layers alike
        """An empty cache."""
        from backend.caches.window import WindowLayerCache

        return WindowLayerCache(self)

    def bits(self, heads: int, head_dim: int) -> float:  # noqa: ARG002 - nothing is added
        """None: a further token takes the place of an old one."""
        return 0.0


def code_bits(bits: int, head_dim: int) -> float:
    """Bits that a number's code takes: its planes of 8, 4, 2 and 1 bits fill whole bytes."""
    planes = [width for width in (8, 4, 2, 1) if bits & width]
    return sum(8 * -(-head_dim * width // 8) for width in planes) / head_dim


def bitmap_bits(head_dim: int) -> float:
    """Bits per number that a bitmap takes: whole bytes a token."""
    return 8 * -(-head_dim // 8) / head_dim
