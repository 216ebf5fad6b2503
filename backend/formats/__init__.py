"""How a weight is held: each format counts its bytes, saves, loads and multiplies.

Imported on first use, so that naming a format costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.formats.base import Format, from_header
    from backend.formats.binary import BinaryCodes
    from backend.formats.bitmask import BitmaskSparse
    from backend.formats.columns import Columns
    from backend.formats.dense import Dense
    from backend.formats.embedding import HeldEmbedding
    from backend.formats.entropy import EntropyCoded
    from backend.formats.floating import FloatCodes
    from backend.formats.group_sparse import GroupSparse
    from backend.formats.integer import IntegerGroups
    from backend.formats.linear import HeldLinear
    from backend.formats.low_rank import LowRank
    from backend.formats.monarch import Monarch
    from backend.formats.outliers import Outliers
    from backend.formats.rounded_inputs import RoundedInputs
    from backend.formats.rows import Rows
    from backend.formats.scalar import ScalarCodebook
    from backend.formats.shared_rows import SharedRows
    from backend.formats.signs import SignBlock
    from backend.formats.sparse import Sparse
    from backend.formats.sparse24 import Sparse24
    from backend.formats.sum import Sum
    from backend.formats.table import TableCodes
    from backend.formats.tensor_train import TensorTrain
    from backend.formats.transposed import Transposed
    from backend.formats.vector import VectorCodebook
    from backend.formats.window import WindowCoded

_HOMES = {
    "Format": "base",
    "from_header": "base",
    "BinaryCodes": "binary",
    "BitmaskSparse": "bitmask",
    "Columns": "columns",
    "Dense": "dense",
    "GroupSparse": "group_sparse",
    "IntegerGroups": "integer",
    "HeldLinear": "linear",
    "LowRank": "low_rank",
    "Monarch": "monarch",
    "Outliers": "outliers",
    "RoundedInputs": "rounded_inputs",
    "Rows": "rows",
    "Sparse24": "sparse24",
    "Sparse": "sparse",
    "Transposed": "transposed",
    "ScalarCodebook": "scalar",
    "FloatCodes": "floating",
    "EntropyCoded": "entropy",
    "SignBlock": "signs",
    "SharedRows": "shared_rows",
    "HeldEmbedding": "embedding",
    "Sum": "sum",
    "TableCodes": "table",
    "TensorTrain": "tensor_train",
    "VectorCodebook": "vector",
    "WindowCoded": "window",
}

__all__ = [
    "BinaryCodes",
    "BitmaskSparse",
    "Columns",
    "Dense",
    "EntropyCoded",
    "FloatCodes",
    "Format",
    "GroupSparse",
    "HeldEmbedding",
    "HeldLinear",
    "IntegerGroups",
    "LowRank",
    "Monarch",
    "Outliers",
    "RoundedInputs",
    "Rows",
    "ScalarCodebook",
    "SharedRows",
    "SignBlock",
    "Sparse",
    "Sparse24",
    "Sum",
    "TableCodes",
    "TensorTrain",
    "Transposed",
    "VectorCodebook",
    "WindowCoded",
    "from_header",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
