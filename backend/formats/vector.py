"""Indices into a codebook of short vectors (vector quantisation)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from backend.formats.base import Format, empty
from backend.formats.slotted_signs import SlottedVectors
from kernels import bitpack, packed


class VectorCodebook(Format):
    """One index of `bits` bits for every `dimension` neighbours: bits / dimension bits an entry.

    The codebook of 2**bits vectors in bfloat16 comes on top.
    """

    key = "vector-codebook"
    indices: Tensor
    codebook: Tensor

    def __init__(self, rows: int, columns: int, bits: int, dimension: int) -> None:
        super().__init__(rows, columns)
        if bits not in bitpack.WIDTHS or columns % dimension:
            raise ValueError(
                f"Indices take 1, 2, 4 or 8 bits and vectors divide a row; "
                f"not {bits} bits and {dimension} of {columns} columns."
            )
        self.index_bits, self.dimension = bits, dimension
        width = bitpack.packed_columns(columns // dimension, bits)
        self.register_buffer("indices", empty(rows, width, dtype=torch.uint8))
        self.register_buffer("codebook", empty(1 << bits, dimension, dtype=torch.bfloat16))

    @classmethod
    def pack(cls, indices: Tensor, codebook: Tensor) -> Self:
        """Hold indices [rows, columns / dimension] into a codebook [2**bits, dimension]."""
        entries, dimension = codebook.shape
        bits = entries.bit_length() - 1
        held = cls(indices.shape[0], indices.shape[1] * dimension, bits, dimension)
        held.indices = bitpack.pack_plane(indices, bits)
        held.codebook = codebook.to(torch.bfloat16)
        return held

    def settings(self) -> dict[str, Any]:
        """Bits of an index and length of a vector."""
        return {"bits": self.index_bits, "dimension": self.dimension}

    def slotted(self) -> Format:
        """As it is held, for the operation that reads it."""
        return SlottedVectors(*self.shape, self.indices, self.codebook, transposed=False)

    def matrix(self) -> packed.Matrix | None:
        """Indices where they lie, beside the codebook in float32."""
        table = self.codebook.to(torch.float32)
        indices = {self.index_bits: self.indices}
        return packed.codebook(indices, self.columns, table, dimension=self.dimension)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        count = self.columns // self.dimension
        indices = bitpack.unpack_plane(self.indices, self.index_bits, count)
        return self.codebook[indices.to(torch.int64)].to(torch.float32).flatten(1)
