"""How keys and values are held while decoding; each cache counts its own bytes.

Imported on first use, so that naming a codec costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.caches.integer import IntegerCodec

_HOMES = {"IntegerCodec": "integer"}

__all__ = ["IntegerCodec"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
