"""A product that torch makes and a decode step calls, for parts that no loop of C++ reads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from kernels import extension
from kernels.products import Product, ProductStructure

_Multiply = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
)


def made(multiply: Callable[[Tensor], Tensor], rows: int, columns: int) -> Product | None:
    """A product by a function of torch; None where there is no extension to call it.

    Args:
        multiply: from activations [tokens, columns], float32, to outputs [tokens, rows].
        rows: outputs.
        columns: inputs.
    """
    if extension.library() is None:
        return None

    def called(_matrix: int | None, x: int, count: int, y: int) -> None:
        outputs = _at(y, count, rows)
        outputs.fill_(torch.nan)  # seen at once, should torch fail where nothing can be raised
        with torch.no_grad():
            outputs.copy_(multiply(_at(x, count, columns)))

    function = _Multiply(called)
    address = ctypes.cast(function, ctypes.c_void_p).value
    return Product(ProductStructure(address, None, None, rows, columns), (function,))


def _at(address: int, rows: int, columns: int) -> Tensor:
    """The float32 numbers [rows, columns] at an address."""
    numbers = (ctypes.c_float * (rows * columns)).from_address(address)
    return torch.frombuffer(numbers, dtype=torch.float32).view(rows, columns)
