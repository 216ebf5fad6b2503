"""In which type a model is computed while it is treated and judged.

Up to a size, in float32: what is judged is then the weights and not the arithmetic of one
machine, and without bfloat16 instructions it is also many times faster. Larger models are
computed in the type they are deployed in, because a copy in float32 would not fit beside them.
"""

from __future__ import annotations

import torch
from torch import nn

from backend.formats import HeldEmbedding

EXACT_PARAMETERS = 300_000_000
DEPLOYED = torch.bfloat16


def computing_dtype(parameters: int) -> torch.dtype:
    """The type in which a model of so many parameters is computed; the same on every machine."""
    return torch.float32 if parameters <= EXACT_PARAMETERS else DEPLOYED


def recast(model: nn.Module, dtype: torch.dtype) -> None:
    """Change the type of everything dense; what formats hold stays as it is."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        if isinstance(module, HeldEmbedding):
            module.dtype = dtype
    model.config.dtype = dtype
