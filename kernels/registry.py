"""Operations as torch knows them: `torch.ops.paretoscope.<name>`, opaque to its compiler.

Each has one schema, shapes for tensors without memory, a reference in torch that runs anywhere,
and a Triton kernel that is loaded at the first call on a GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

NAMESPACE = "paretoscope"
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
OPERATIONS: list[str] = []
"""Names of all that were registered, in order."""


def operation(
    schema: str, *, shape: Callable[..., Any], reference: Callable[..., Any], kernel: str
) -> Callable[..., Any]:
    """Register an operation and return it.

    Args:
        schema: `name(Tensor x, ...) -> Tensor`.
        shape: the result for tensors without memory.
        reference: what runs on a CPU.
        kernel: `module.function` below `kernels.triton` that runs on a GPU.
    """
    name = schema.split("(")[0]
    _LIBRARY.define(schema, tags=TAGS)
    _LIBRARY.impl(name, reference, "CPU")
    _LIBRARY.impl(name, _loaded_later(kernel), "CUDA")
    torch.library.register_fake(f"{NAMESPACE}::{name}", shape, lib=_LIBRARY)
    OPERATIONS.append(name)
    return getattr(getattr(torch.ops, NAMESPACE), name).default


def _loaded_later(kernel: str) -> Callable[..., Any]:
    module, _, function = kernel.rpartition(".")

    def run(*args: Any, **settings: Any) -> Any:
        try:
            loaded = importlib.import_module(f"kernels.triton.{module}")
        except ImportError as error:
            raise RuntimeError(
                f"The product {function!r} on a GPU needs Triton, which cannot be loaded: {error} "
                "Install the extra `gpu`."
            ) from error
        return getattr(loaded, function)(*args, **settings)

    return run
