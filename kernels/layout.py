"""Where the parts of a held matrix lie, as the extension reads them; nothing is laid out anew.

`packed`, `masked` and `coded` each know some kinds of matrices.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from kernels import extension, products
from kernels.products import Product

Address, Number = ctypes.c_void_p, ctypes.c_int64


class Packed(ctypes.Structure):
    """What every kind begins with: how a part of a row is decoded, rows and columns."""

    _fields_ = (
        ("decode", Address),
        ("rows", Number),
        ("columns", Number),
    )


@dataclass(frozen=True)
class Matrix:
    """Where the parts of a matrix lie, and what must stay alive as long as it is read."""

    structure: ctypes.Structure
    kept: tuple[object, ...] = field(default=(), repr=False)
    by: str = "multiply_packed"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.structure.shape.rows, self.structure.shape.columns

    @property
    def address(self) -> int:
        """Of the structure."""
        return ctypes.addressof(self.structure)

    @cached_property
    def most(self) -> int:
        """Activations up to which its product beats one by a dense matrix."""
        asked = extension.library().most_activations
        asked.restype = Number
        return asked(Address(self.address))

    def product(self) -> Product | None:
        """As a decode step in one call multiplies by it."""
        return products.made(self.by, self.structure, *self.shape, self)

    def multiply(self, activation: Tensor) -> Tensor:
        """Activation [..., columns] of any floating type times the transpose, [..., rows]."""
        flat = activation.reshape(-1, self.shape[1]).to(torch.float32).contiguous()
        found = torch.empty(flat.shape[0], self.shape[0])
        extension.library().multiply_many(
            Address(self.address), Address(flat.data_ptr()), Number(flat.shape[0]),
            Address(found.data_ptr()),
        )  # fmt: skip
        return found.to(activation.dtype).view(*activation.shape[:-1], self.shape[0])

    def take(self, places: Tensor) -> Tensor:
        """Rows [number of rows, columns] by their places, in float32.

        Raises:
            IndexError: a place is none of the rows, which are read without looking.
        """
        places = places.to(torch.int64).contiguous()
        if places.numel() and not 0 <= int(places.min()) <= int(places.max()) < self.shape[0]:
            raise IndexError(f"Rows of this matrix are 0 to {self.shape[0] - 1}.")
        found = torch.empty(places.numel(), self.shape[1])
        extension.library().decode_some(
            Address(self.address), Address(places.data_ptr()), Number(places.numel()),
            Address(found.data_ptr()),
        )  # fmt: skip
        return found

    def dense(self) -> Tensor:
        """The matrix in float32."""
        found = torch.empty(self.shape)
        extension.library().decode_all(Address(self.address), Address(found.data_ptr()))
        return found


def here(*parts: Tensor) -> bool:
    """Whether the extension can read these where they lie."""
    usual = all(part.device.type == "cpu" and part.is_contiguous() for part in parts)
    return usual and extension.library() is not None


def shape_of(decode: str, rows: int, columns: int) -> Packed:
    """How a matrix begins that the extension decodes by a function of this name."""
    address = ctypes.cast(getattr(extension.library(), decode), Address).value
    return Packed(address, rows, columns)
