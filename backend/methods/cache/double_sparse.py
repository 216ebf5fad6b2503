"""Double Sparsity: a few channels of the keys find the few tokens that are attended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import caches
from backend.methods.base import CacheMethod, Needs, Stage, setting
from backend.methods.cache._codes import code_widths, widest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backend.caches.codecs import Codec


@dataclass(frozen=True)
class DoubleSparse(CacheMethod):
    """Let a few channels of the keys find the few tokens that a query attends.

    Which channels add most to products of queries and keys hardly changes with the text: they are
    looked up once, while the compressed model reads calibration text. These label channels lie
    together. Every new token multiplies them alone, takes the tokens with the largest shares, and
    reads whole keys and values of those only. Nothing is forgotten: the next token may attend
    others. Within a smaller budget whole keys and values are codes, and labels lie beside them.
    """

    stage = Stage.CACHE
    needs = Needs.TEXT
    paper = "arXiv 2408.07092"
    claim = "A sixteenth of tokens and channels: up to 14.1x faster attention, 1.9x end to end."
    limits = (
        "Saves reading, not memory: with 16 bits all is held, labels being a part of the keys. A "
        "text is read whole, only steps are sparse. Heads that share keys choose "
        "tokens together. Offloading to a processor is left out. Needs a model whose attention "
        "can be named. Layers whose cache is a sliding window of the model's own stay as they are."
    )

    bits: float = setting(
        16.0, "Bits per key and value number, labels counted.", low=2.25, high=16.0
    )
    tokens: float = setting(0.0625, "Share of the tokens that are attended.", low=0.001, high=1.0)
    least: int = setting(128, "Tokens attended at least.", low=1, high=65536)
    channels: int = setting(
        8, "Channels of a head that find tokens, at most a quarter of it.", low=1, high=256
    )
    chunk: int = setting(32, "Tokens in a chunk of codes.", choices=(16, 32, 64, 128))
    window: int = setting(32, "Newest tokens kept exact beside codes.", low=0, high=1024)

    def codec(self, heads: int, head_dim: int) -> Codec:
        """All in 16 bits, else the widest codes within the budget beside the labels.

        Raises:
            OutOfReachError: two-bit codes and the labels take more.
        """
        rest = max(1, min(self.channels, head_dim // 4)), self.tokens, self.least
        return widest(self, self._codecs(*rest), heads, head_dim)

    def _codecs(self, channels: int, share: float, least: int) -> Iterator[Codec]:
        yield caches.LabelledCodec(channels, share, least)
        for widths in code_widths():
            codes = caches.IntegerCodec(*widths, self.chunk, self.window)
            yield caches.LabelledCodec(channels, share, least, codes)
