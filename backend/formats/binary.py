"""Sums of signs with a scale to each group (binary coding), multiplied by tables of partial sums.

weight[n, k] = offset[n, g] + sum over planes of scale[plane, n, g] * (+1 or -1), g the group of k.
By torch a product adds up eight activations at a time for each of the 256 ways to give them signs,
and then only looks up (LUT-GEMM, arXiv 2206.09557); the extension adds up activations that the
bits of a plane mark, as it does for any plane of codes.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from backend.formats.base import Format, empty
from backend.formats.dense import Dense
from backend.formats.slotted_signs import SlottedPlanes
from kernels import bitpack, packed

CHUNK = 8
"""Activations that one table stands for: the signs of a byte."""
FEW = 16
"""Activations up to which tables are made, each for one of them, where there is no extension."""


class BinaryCodes(Format):
    """Planes of one bit an entry, 16 bits for each plane and one more to a group."""

    key = "binary-codes"
    signs: Tensor

    def __init__(
        self, rows: int, columns: int, *, planes: int, group_size: int, scales: Format
    ) -> None:
        super().__init__(rows, columns)
        if group_size % CHUNK and group_size < columns:
            raise ValueError(f"Groups are whole bytes of signs, not {group_size} of them.")
        self.planes, self.group_size = planes, group_size
        width = bitpack.packed_columns(columns, 1)
        self.register_buffer("signs", empty(planes, rows, width, dtype=torch.uint8))
        self.scales = scales

    @classmethod
    def pack(cls, positive: Tensor, scales: Tensor, offsets: Tensor, group_size: int) -> Self:
        """Hold where signs are positive [planes, rows, columns], and what they are worth.

        Args:
            positive: true for +1.
            scales: [planes, rows, groups].
            offsets: [rows, groups].
            group_size: columns of a group; the last may have fewer.
        """
        planes, rows, columns = positive.shape
        held = Dense.pack(torch.cat([*scales, offsets]))
        made = cls(rows, columns, planes=planes, group_size=group_size, scales=held)
        bits = [bitpack.pack_plane(one.to(torch.uint8), 1) for one in positive]
        made.signs = torch.stack(bits)
        return made

    def fitting(self) -> dict[str, tuple[int, int]]:
        """Scales of each plane and offsets, by group."""
        groups = -(-self.columns // self.group_size)
        return {"scales": ((self.planes + 1) * self.rows, groups)}

    def settings(self) -> dict[str, Any]:
        """How many planes, and the size of a group."""
        return {"planes": self.planes, "group_size": self.group_size}

    @property
    def _worth(self) -> Tensor:
        """Scales of every plane, then offsets: [planes + 1, rows, groups], float32."""
        return self.scales.dense().view(self.planes + 1, self.rows, -1)

    def _spread(self, each: Tensor) -> Tensor:
        """A number to each group as a number to each column, [..., columns]."""
        return each.repeat_interleave(self.group_size, -1)[..., : self.columns]

    def dense(self) -> Tensor:
        """The matrix in float32."""
        *scales, total = self._spread(self._worth)
        for bits, scale in zip(self.signs, scales, strict=True):
            positive = bitpack.unpack_plane(bits, 1, self.columns).to(torch.bool)
            total = total + torch.where(positive, scale, -scale)
        return total

    def multiply(self, activation: Tensor) -> Tensor:
        """By tables for few activations on a processor without the extension, else as others."""
        many = activation.numel() > FEW * self.columns or activation.requires_grad
        if many or activation.device.type != "cpu" or self.lying() is not None:
            return super().multiply(activation)
        flat = activation.reshape(-1, self.columns).to(torch.float32)
        found = torch.stack([self._by_tables(one) for one in flat])
        return found.to(activation.dtype).view(*activation.shape[:-1], self.rows)

    def _by_tables(self, activation: Tensor) -> Tensor:
        """The product with one activation [columns]: [rows]."""
        *scales, offsets = self._worth
        groups = offsets.shape[1]
        size = min(self.group_size, self.columns)
        padded = functional.pad(activation, (0, groups * size - self.columns)).view(groups, size)
        chunks = functional.pad(padded, (0, -size % CHUNK)).view(groups, -1, CHUNK)
        tables = chunks.flatten(0, 1) @ _ways()
        total = offsets @ padded.sum(1)
        short = tables.shape[0] - self.signs.shape[2]  # of a last group that is not full
        for bits, scale in zip(self.signs, scales, strict=True):
            places = functional.pad(bits, (0, short)).T.to(torch.int64)
            sums = tables.gather(1, places).view(groups, -1, self.rows).sum(1)
            total = total + (scale * sums.T).sum(1)
        return total

    def slotted(self) -> Format:
        """Signs in words, where groups of this size fill them."""
        if not isinstance(self.scales, Dense):
            return self
        planes = [bitpack.unpack_plane(one, 1, self.columns) for one in self.signs]
        worth = self.scales.values.view(self.planes + 1, self.rows, -1)
        try:
            return SlottedPlanes(torch.stack(planes), worth, self.group_size)
        except ValueError:  # groups of another size: no operation, so it is made dense
            return self

    def matrix(self) -> packed.Matrix | None:
        """Signs, scales and offsets where they lie."""
        worth = self.scales.matrix()
        return packed.binary(self.signs, self.columns, worth, self.group_size)


def _ways() -> Tensor:
    """Every way to give eight activations signs, [8, 256]; the first in the lowest bit."""
    codes = torch.arange(1 << CHUNK)
    bits = codes >> torch.arange(CHUNK).unsqueeze(1) & 1
    return (2 * bits - 1).to(torch.float32)
