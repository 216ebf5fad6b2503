"""Products that a decode step multiplies by, and how they compose.

A product is a function of the extension and the matrix it multiplies by; products compose (one
after another, added, rows put in their places), so that whatever is held in parts is multiplied
in parts. Where there is no extension there are no products, and the caller steps by torch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels import extension


class ProductStructure(ctypes.Structure):
    """`Product` of kernels/cpu/decode_step.h."""

    _fields_ = (
        ("multiply", ctypes.c_void_p),
        ("matrix", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
    )


class _Parts(ctypes.Structure):
    _fields_ = (("of", ctypes.POINTER(ProductStructure)), ("count", ctypes.c_int64))


class _Placed(ctypes.Structure):
    _fields_ = (
        ("parts", _Parts),
        ("places", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
    )


class _Gathered(ctypes.Structure):
    _fields_ = (
        ("inner", ProductStructure),
        ("places", ctypes.c_void_p),
        ("columns", ctypes.c_int64),
    )


class _Repeated(ctypes.Structure):
    _fields_ = (
        ("inner", ProductStructure),
        ("groups", ctypes.c_int64),
        ("apart", ctypes.c_int64),
    )


@dataclass(frozen=True)
class Product:
    """A matrix that a step can multiply by, and what must stay alive as long as it does."""

    structure: ProductStructure
    kept: tuple[object, ...] = field(default=(), repr=False)

    @property
    def rows(self) -> int:
        """Outputs."""
        return self.structure.rows

    @property
    def columns(self) -> int:
        """Inputs."""
        return self.structure.columns

    def plus(self, bias: Tensor | None) -> Product:
        """The same with a bias [rows] added, to the one that it may have."""
        if bias is None:
            return self
        one = self.structure
        bias = bias.detach().to(torch.float32).contiguous()
        if one.bias:
            bias = bias + self.kept[-1]
        whole = ProductStructure(one.multiply, one.matrix, bias.data_ptr(), one.rows, one.columns)
        return Product(whole, (*self.kept, bias))

    def __call__(self, activation: Tensor) -> Tensor:
        """Outputs [..., rows] of activations [..., columns], float32."""
        x = activation.to(torch.float32).contiguous()
        y = torch.empty(*x.shape[:-1], self.rows)
        kinds = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
        function = ctypes.CFUNCTYPE(None, *kinds)(self.structure.multiply)
        count = x.numel() // self.columns
        function(self.structure.matrix, x.data_ptr(), count, y.data_ptr())
        if self.structure.bias:
            y += self.kept[-1]
        return y


def made(
    function: str, matrix: ctypes.Structure, rows: int, columns: int, *kept: object
) -> Product | None:
    """A product by a function of the extension; None where there is no extension."""
    library = extension.library()
    if library is None:
        return None
    address = ctypes.cast(getattr(library, function), ctypes.c_void_p).value
    structure = ProductStructure(address, ctypes.addressof(matrix), None, rows, columns)
    return Product(structure, (matrix, *kept))


def chain(*parts: Product | None) -> Product | None:
    """One product after another, the first applied first."""
    if None in parts:
        return None
    held = _parts(parts)
    return made("multiply_chain", held, parts[-1].rows, parts[0].columns, parts)


def total(*parts: Product | None) -> Product | None:
    """Products of one shape, added."""
    if None in parts:
        return None
    return made("multiply_sum", _parts(parts), parts[0].rows, parts[0].columns, parts)


def placed(places: Tensor, *parts: Product | None) -> Product | None:
    """Rows `places` [rows] of products whose rows follow each other; any may be taken twice."""
    if None in parts:
        return None
    places = places.to(torch.int64).contiguous()
    matrix = _Placed(_parts(parts), places.data_ptr(), places.numel())
    return made("multiply_placed", matrix, matrix.rows, parts[0].columns, places, parts)


def gathered(places: Tensor, columns: int, inner: Product | None) -> Product | None:
    """A product of inputs `places` [inner columns] alone, of so many."""
    if inner is None:
        return None
    places = places.to(torch.int64).contiguous()
    matrix = _Gathered(inner.structure, places.data_ptr(), columns)
    return made("multiply_gathered", matrix, inner.rows, columns, places, inner)


def repeated(inner: Product | None, groups: int, apart: int) -> Product | None:
    """The same product between identities, I x P x I: of [groups, columns, apart] each column."""
    if inner is None:
        return None
    if inner.structure.bias:
        raise ValueError("A product that is repeated has no bias.")
    matrix = _Repeated(inner.structure, groups, apart)
    sizes = (groups * one * apart for one in (inner.rows, inner.columns))
    return made("multiply_repeated", matrix, *sizes, inner)


def _parts(parts: Sequence[Product]) -> _Parts:
    """Keeps its array alive by itself."""
    return _Parts((ProductStructure * len(parts))(*(part.structure for part in parts)), len(parts))
