"""Operations as torch knows them: `torch.ops.paretoscope.<name>`, opaque to its compiler.

Each has one schema, shapes for tensors without memory and a reference in torch; those for a GPU
have a Triton kernel, which is loaded at the first call there.
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
"""Names of all that have a kernel, in order."""


def operation(
    schema: str, *, shape: Callable[..., Any], reference: Callable[..., Any], kernel: str
) -> Callable[..., Any]:
    """Register an operation that also has a kernel, and return it.

    Args:
        schema: `name(Tensor x, ...) -> Tensor`.
        shape: the result for tensors without memory.
        reference: what runs on a CPU.
        kernel: `module.function` below `kernels.triton` that runs on a GPU.
    """
    found, name = on_processor(schema, shape=shape, run=reference), schema.split("(")[0]
    _LIBRARY.impl(name, _loaded_later(kernel), "CUDA")
    OPERATIONS.append(name)
    return found


def on_processor(
    schema: str, *, shape: Callable[..., Any], run: Callable[..., Any]
) -> Callable[..., Any]:
    """Register an operation that only a processor runs, and return it; see `operation`."""
    name = schema.split("(")[0]
    _LIBRARY.define(schema, tags=TAGS)
    _LIBRARY.impl(name, run, "CPU")
    torch.library.register_fake(f"{NAMESPACE}::{name}", shape, lib=_LIBRARY)
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
