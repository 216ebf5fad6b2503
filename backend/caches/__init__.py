"""How keys and values are held while decoding; each cache counts its own bytes.

Imported on first use, so that naming a codec costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.caches.bitmap import BitmapCodec
    from backend.caches.corrected import CorrectedCodec
    from backend.caches.integer import IntegerCodec
    from backend.caches.salient import SalientCodec
    from backend.caches.window import WindowCodec

_HOMES = {
    "BitmapCodec": "bitmap",
    "CorrectedCodec": "corrected",
    "IntegerCodec": "integer",
    "SalientCodec": "salient",
    "WindowCodec": "window",
}

__all__ = ["BitmapCodec", "CorrectedCodec", "IntegerCodec", "SalientCodec", "WindowCodec"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
