"""How many tokens a head keeps of a text when the rest is dropped or merged; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.caches.codecs import Codec

if TYPE_CHECKING:
    from backend.caches.base import LayerCache

SLACK = 16  # tokens between two looks at what matters; the newest of these judge locally


@dataclass(frozen=True)
class CondensedCodec(Codec):
    """What a head keeps of the tokens before its window, and what it merges into that.

    Attributes:
        kept: tokens.
        window: newest tokens kept as they are.
        merged: tokens that may be merged, for each that is kept.
        alike: least cosine of two keys that are merged.
        context: tokens at which the budget is met.
    """

    kept: int
    window: int
    merged: float
    alike: float
    context: int

    def layer(self, index: int) -> LayerCache:  # noqa: ARG002 - all layers alike
        """An empty cache."""
        from backend.caches.condensed import CondensedLayerCache

        return CondensedLayerCache(self)

    def bits(self, heads: int, head_dim: int) -> float:  # noqa: ARG002 - nothing is added
        """None: a further token takes the place of old ones."""
        return 0.0


def token_bytes(head_dim: int) -> int:
    """Bytes of a token of one head: key and value, two sums, and its column of attention."""
    return 4 * head_dim + 8 + 2 * SLACK
