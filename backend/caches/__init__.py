"""How keys and values are held while decoding; each cache counts its own bytes.

Naming a codec costs no torch; the caches themselves are imported when the first is made.
"""

from __future__ import annotations

from backend.caches.codecs import (
    BitmapCodec,
    CorrectedCodec,
    IntegerCodec,
    SalientCodec,
    WindowCodec,
)
from backend.caches.condensed_codec import CondensedCodec
from backend.caches.heads_codec import HeadsCodec
from backend.caches.labelled_codec import LabelledCodec
from backend.caches.reduced_codec import ReducedCodec
from backend.caches.rotated_codec import RotatedCodec

__all__ = [
    "BitmapCodec",
    "CondensedCodec",
    "CorrectedCodec",
    "HeadsCodec",
    "IntegerCodec",
    "LabelledCodec",
    "ReducedCodec",
    "RotatedCodec",
    "SalientCodec",
    "WindowCodec",
]
