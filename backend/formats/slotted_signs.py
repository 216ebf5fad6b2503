"""Signs and vectors of codebooks as the operations for a GPU take them; never saved."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.formats.base import Format, reordered
from backend.formats.slotted import Slotted
from kernels import bitplane_mm, slots, vq_mm


class SlottedPlanes(Slotted):
    """Planes of signs in words, with what they are worth by group."""

    key = "slotted-planes"
    worth: Tensor

    def __init__(self, positive: Tensor, worth: Tensor, group_size: int) -> None:
        """Hold where signs are positive [planes, rows, columns], and [planes + 1, rows, groups].

        Raises:
            ValueError: groups of this size fill no words.
        """
        super().__init__(*positive.shape[1:])
        self.group_size = group_size
        tile = slots.tile_of(group_size, self.columns)
        words = torch.stack([slots.pack(one, 1, tile) for one in positive])
        self.register_buffer("words", words)
        self.register_buffer("worth", worth.transpose(1, 2).contiguous())

    def operate(self, activation: Tensor, bias: Tensor | None) -> Tensor:
        """By `bitplane_mm`."""
        return bitplane_mm.planes(activation, self.words, self.worth, self.group_size, bias)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        about = self.worth.to(torch.float32), self.group_size, self.columns
        return bitplane_mm.planes_dense(self.words, *about)


class SlottedSigns(Slotted):
    """Signs in words before the sizes of two factors."""

    key = "slotted-signs"
    left: Tensor
    right: Tensor

    def __init__(self, positive: Tensor, left: Tensor, right: Tensor) -> None:
        """Hold where signs are positive [rows, columns], and [rows, rank] and [rank, columns]."""
        super().__init__(*positive.shape)
        self.register_buffer("words", slots.pack(positive, 1, slots.WIDEST_TILE))
        self.register_buffer("left", left)
        self.register_buffer("right", right)

    def operate(self, activation: Tensor, bias: Tensor | None) -> Tensor:
        """By `signs_mm`."""
        return bitplane_mm.sized(activation, self.words, self.left, self.right, bias)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return bitplane_mm.sized_dense(self.words, self.left, self.right)


class SlottedVectors(Slotted):
    """Indices and a codebook as `VectorCodebook` holds them, or the transpose of that."""

    key = "slotted-vectors"
    codebook: Tensor

    def __init__(
        self, rows: int, columns: int, indices: Tensor, codebook: Tensor, *, transposed: bool
    ) -> None:
        super().__init__(rows, columns)
        self.transposed = transposed
        self.register_buffer("words", indices)
        self.register_buffer("codebook", codebook)

    def operate(self, activation: Tensor, bias: Tensor | None) -> Tensor:
        """By `vq_mm`."""
        about = self.words, self.codebook, self.rows, self.transposed
        return vq_mm.product(activation, *about, bias)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        length = self.rows if self.transposed else self.columns
        found = vq_mm.decoded(self.words, self.codebook, length)
        return found.T if self.transposed else found


class SlottedInputs(Format):
    """Some columns in one format, the others in another: the transpose of `Rows`.

    Where the columns go is held as 32 bits each, for a product to reorder its activations by.
    """

    key = "slotted-inputs"
    order: Tensor

    def __init__(self, mask: Tensor, fine: Format, coarse: Format) -> None:
        """Column i is the next of `fine` where mask[i], else the next of `coarse`."""
        super().__init__(fine.rows, mask.numel())
        order = torch.cat([mask.nonzero(), (~mask).nonzero()]).flatten().to(torch.int32)
        self.register_buffer("order", order)
        self.fine, self.coarse = fine, coarse

    def multiply(self, activation: Tensor) -> Tensor:
        """Two products with the activations that belong to each, added."""
        ordered = reordered(activation, self.order)
        parts = ordered.split([self.fine.columns, self.coarse.columns], dim=-1)
        return self.fine.multiply(parts[0]) + self.coarse.multiply(parts[1])

    def dense(self) -> Tensor:
        """The matrix in float32."""
        both = torch.cat([self.fine.dense(), self.coarse.dense()], dim=1)
        return torch.empty_like(both).index_copy_(1, self.order.to(torch.int64), both)

    @property
    def speed(self) -> str:
        """Runs packed if both parts do."""
        both = (self.fine.speed, self.coarse.speed)
        return "measured" if both == ("measured", "measured") else "emulated"
