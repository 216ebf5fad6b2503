"""How a weight is held: each format counts its bytes, saves, loads and multiplies.

Imported on first use, so that naming a format costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.formats.base import Format, from_header
    from backend.formats.bitmask import BitmaskSparse
    from backend.formats.dense import Dense
    from backend.formats.integer import IntegerGroups
    from backend.formats.linear import HeldLinear
    from backend.formats.low_rank import LowRank
    from backend.formats.outliers import Outliers
    from backend.formats.rows import Rows
    from backend.formats.sparse24 import Sparse24
    from backend.formats.sum import Sum
    from backend.formats.vector import VectorCodebook

_HOMES = {
    "Format": "base",
    "from_header": "base",
    "BitmaskSparse": "bitmask",
    "Dense": "dense",
    "IntegerGroups": "integer",
    "HeldLinear": "linear",
    "LowRank": "low_rank",
    "Outliers": "outliers",
    "Rows": "rows",
    "Sparse24": "sparse24",
    "Sum": "sum",
    "VectorCodebook": "vector",
}

__all__ = [
    "BitmaskSparse",
    "Dense",
    "Format",
    "HeldLinear",
    "IntegerGroups",
    "LowRank",
    "Outliers",
    "Rows",
    "Sparse24",
    "Sum",
    "VectorCodebook",
    "from_header",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
