"""What formats that leave entries out have in common: the places that are held, and the values."""

from __future__ import annotations

import abc

from torch import Tensor

from backend.formats.base import Format


class Sparse(Format):
    """Some entries of a matrix, row after row, in a format of their own."""

    values: Format

    @abc.abstractmethod
    def kept(self) -> Tensor:
        """True where an entry is held, [rows, columns]."""

    def compact(self, matrix: Tensor) -> Tensor:
        """The entries of a matrix [rows, columns] that would be held, in the shape of `values`."""
        return matrix[self.kept()].view(self.values.shape)
