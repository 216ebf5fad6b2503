"""Integer codes in groups along each row, a scale to each group and perhaps an offset.

weight[n, k] = (code[n, k] - 2**(bits - 1)) * scale[n, group of k] + offset[n, group of k]

An offset is held as 16 bits a group, or, as GPTQ does, as an integer zero point of `bits`
bits that stands in for a multiple of the scale. Scales are themselves a format: held dense, or
as integer groups again (two levels, SpQR, arXiv 2306.03078).
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from backend.formats.base import Format, empty
from backend.formats.dense import Dense
from backend.formats.slotted import SlottedGroups
from backend.formats.torch_packed import Int4Tiles, Int8Rows
from kernels import bitpack, packed, wna16_mm

OFFSETS = ("none", "zero-point", "float")


class Planes(nn.Module):
    """Codes [rows, columns] of 1 to 8 bits as bit planes."""

    def __init__(self, rows: int, columns: int, bits: int) -> None:
        super().__init__()
        self.columns = columns
        for width in bitpack.plane_widths(bits):
            shape = rows, bitpack.packed_columns(columns, width)
            self.register_buffer(f"plane{width}", empty(*shape, dtype=torch.uint8))

    def put(self, codes: Tensor, bits: int) -> None:
        """Hold codes [rows, columns]."""
        for width, plane in bitpack.pack(codes, bits).items():
            setattr(self, f"plane{width}", plane)

    def get(self, rows: Tensor | None = None) -> Tensor:
        """The codes [rows, columns], uint8; of all rows, or of those at some places."""
        parts = self.parts()
        if rows is not None:
            parts = {width: part[rows] for width, part in parts.items()}
        return bitpack.unpack(parts, self.columns)

    def parts(self) -> dict[int, Tensor]:
        """The planes by their width."""
        return {int(name.removeprefix("plane")): part for name, part in self.named_buffers()}


class IntegerGroups(Format):
    """Codes of 1 to 8 bits in groups that share a scale; what most quantisers produce."""

    key = "integer-groups"

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        bits: int,
        group_size: int,
        offset: str,
        scales: Format,
        offsets: Format | None = None,
    ) -> None:
        super().__init__(rows, columns)
        if offset not in OFFSETS:
            raise ValueError(f"An offset is one of {', '.join(OFFSETS)}, not {offset!r}.")
        self.code_bits, self.group_size, self.offset = bits, group_size, offset
        self.codes = Planes(rows, columns, bits)
        self.scales = scales
        self.offsets = offsets
        if offset == "zero-point":
            self.zero_points = Planes(rows, self.groups, bits)

    @property
    def groups(self) -> int:
        """Groups in a row; the last may be shorter."""
        return -(-self.columns // self.group_size)

    def fitting(self) -> dict[str, tuple[int, int]]:
        """A scale, and an offset where there are some, to each group."""
        return dict.fromkeys(self.inner(), (self.rows, self.groups))

    @classmethod
    def pack(
        cls,
        codes: Tensor,
        scales: Tensor | Format,
        offsets: Tensor | Format | None = None,
        *,
        bits: int,
        group_size: int,
        zero_points: Tensor | None = None,
    ) -> Self:
        """Hold codes [rows, columns] in 0 .. 2**bits - 1.

        Args:
            codes: integers of any type.
            scales: [rows, groups], or a format that holds them.
            offsets: [rows, groups] or a format; None for codes around zero.
            bits: 1 to 8.
            group_size: columns that share a scale.
            zero_points: integer codes [rows, groups] that mean weight 0, in place of offsets.
        """
        rows, columns = codes.shape
        offset = "zero-point" if zero_points is not None else "none" if offsets is None else "float"
        scales = Dense.pack(scales) if isinstance(scales, Tensor) else scales
        offsets = Dense.pack(offsets) if isinstance(offsets, Tensor) else offsets
        held = cls(
            rows,
            columns,
            bits=bits,
            group_size=group_size,
            offset=offset,
            scales=scales,
            offsets=offsets,
        )
        held.codes.put(codes, bits)
        if zero_points is not None:
            held.zero_points.put(zero_points, bits)
        return held

    def settings(self) -> dict[str, Any]:
        """Bits of a code, group size, kind of offset."""
        return {"bits": self.code_bits, "group_size": self.group_size, "offset": self.offset}

    def group_values(self, rows: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Scales and offsets [rows, groups] in float32; of all rows, or of those at some places."""

        def of(held: Format) -> Tensor:
            return held.dense() if rows is None else held.take(rows)

        scales = of(self.scales)
        if self.offset == "zero-point":
            middle = float(1 << (self.code_bits - 1))
            return scales, (middle - self.zero_points.get(rows).to(torch.float32)) * scales
        return scales, None if self.offsets is None else of(self.offsets)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return self._unpacked(None)

    def take(self, rows: Tensor) -> Tensor:
        """Some rows, and no other is unpacked."""
        if rows.device.type == "cpu" and self.lying() is not None:
            return super().take(rows)
        return self._unpacked(rows)

    def _unpacked(self, rows: Tensor | None) -> Tensor:
        codes, (scales, offsets) = self.codes.get(rows), self.group_values(rows)
        return wna16_mm.dequantise(codes, scales, offsets, self.code_bits, self.group_size)

    def matrix(self) -> packed.Matrix | None:
        """Planes, scales and offsets where they lie; scales may be integers themselves."""
        offsets = None if self.offsets is None else self.offsets.matrix()
        if self.offset == "float" and offsets is None:
            return None
        zeros = self.zero_points.parts() if self.offset == "zero-point" else None
        return packed.integers(
            self.codes.parts(),
            self.columns,
            self.scales.matrix(),
            middle=float(1 << (self.code_bits - 1)),
            group_size=self.group_size,
            offsets=offsets,
            zero_points=zeros,
        )

    def slotted(self) -> Format:
        """Codes in words, where groups of this size fill them."""
        zeros = self.zero_points if self.offset == "zero-point" else None
        beside = {"scales": self.scales, "offsets": self.offsets, "zero_points": zeros}
        try:
            return SlottedGroups.pack(self.codes.get(), self.code_bits, self.group_size, **beside)
        except ValueError:  # groups of another size: no operation, so it is made dense
            return self

    def packed(self) -> Format:
        """Itself where the extension reads it, else the layout of torch's packed products."""
        if self.on_gpu:
            return self.slotted()
        if self.matrix() is not None:
            return self
        if not isinstance(self.scales, Dense) or self.scales.values.dtype != torch.bfloat16:
            return self
        device = self.scales.values.device
        symmetric = self.offset == "none"
        if wna16_mm.int8_ready(self.columns, self.code_bits, self.groups, symmetric, device):
            codes = (self.codes.get().to(torch.int16) - 128).to(torch.int8)
            return Int8Rows.pack(codes, self.scales.values.squeeze(1))
        # torch's tiles take a scale and an offset of 16 bits a group: the bytes held here
        if self.offset == "float" and wna16_mm.int4_ready(
            self.rows, self.columns, self.code_bits, self.group_size, device
        ):
            return Int4Tiles.pack(self.codes.get(), *self.group_values(), self.group_size)
        return self
