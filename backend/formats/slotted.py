"""Formats as the operations of `kernels` for a GPU take them: made at load, never saved.

Each takes the place of the format that it was made of, in the same bytes but for what fills up the
last tile of a row, and is multiplied by activations of 16 bits where it lies; others meet the
dense matrix. On a processor the same operations run by their references, for tests.
"""

from __future__ import annotations

import abc
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from backend.formats.base import Format
from backend.formats.dense import Dense
from backend.formats.outliers import Outliers
from kernels import lut_mm, outlier_mm, slots, sparse_mm, wna16_mm

SIXTEEN = (torch.bfloat16, torch.float16)


class Slotted(Format):
    """A format that an operation multiplies by."""

    words: Tensor

    @abc.abstractmethod
    def operate(self, activation: Tensor, bias: Tensor | None) -> Tensor:
        """Activation [tokens, columns] of 16 bits to [tokens, rows]."""

    def multiply(self, activation: Tensor) -> Tensor:
        """By the operation where the activation has 16 bits, else by the dense matrix."""
        return self._product(activation, None)

    def affine(self, activation: Tensor, bias: Tensor) -> Tensor:
        """The same with a bias [rows], added before the sum is rounded."""
        return self._product(activation, bias)

    def _product(self, activation: Tensor, bias: Tensor | None) -> Tensor:
        if activation.dtype not in SIXTEEN:
            dtype = activation.dtype
            added = None if bias is None else bias.to(dtype)
            return functional.linear(activation, self.dense().to(dtype), added)
        flat = activation.reshape(-1, self.columns).contiguous()
        return self.operate(flat, bias).view(*activation.shape[:-1], self.rows)

    def slotted(self) -> Format:
        """Itself."""
        return self

    @property
    def speed(self) -> str:
        """The operation has a kernel on a GPU alone."""
        return "measured" if self.words.device.type == "cuda" else "emulated"


class SlottedGroups(Slotted):
    """Integer groups: codes in words; scales and offsets by group where they are plain numbers.

    Scales that are a format of their own, and zero points, stay as they are held and are decoded
    beside each product, one number for a whole group.
    """

    key = "slotted-groups"

    def __init__(
        self,
        words: Tensor,
        columns: int,
        bits: int,
        group_size: int,
        *,
        scales: Format,
        offsets: Format | None = None,
        zero_points: torch.nn.Module | None = None,
    ) -> None:
        super().__init__(words.shape[0], columns)
        self.code_bits, self.group_size = bits, group_size
        self.register_buffer("words", words)
        self.turned = isinstance(scales, Dense) and zero_points is None
        self.scales = _turned(scales) if self.turned else scales
        plain = isinstance(offsets, Dense)
        self.offsets_turned = plain
        self.offsets = _turned(offsets) if plain else offsets
        self.zero_points = zero_points

    @classmethod
    def pack(
        cls,
        codes: Tensor,
        bits: int,
        group_size: int,
        *,
        scales: Format,
        offsets: Format | None = None,
        zero_points: torch.nn.Module | None = None,
    ) -> Self:
        """Hold codes [rows, columns] with what an `IntegerGroups` holds beside them.

        Raises:
            ValueError: groups of this size fill no words.
        """
        columns = codes.shape[1]
        words = slots.pack(codes, bits, slots.tile_of(group_size, columns))
        beside = {"scales": scales, "offsets": offsets, "zero_points": zero_points}
        return cls(words, columns, bits, group_size, **beside)

    def by_group(self) -> tuple[Tensor, Tensor | None]:
        """Scales and offsets [groups, rows]."""
        scales = self.scales.values if self.turned else self.scales.dense().T.contiguous()
        if self.zero_points is not None:
            middle = float(1 << (self.code_bits - 1))
            points = self.zero_points.get().to(torch.float32).T
            return scales, (middle - points) * scales
        if self.offsets is None:
            return scales, None
        held = self.offsets
        return scales, held.values if self.offsets_turned else held.dense().T.contiguous()

    def operate(
        self, activation: Tensor, bias: Tensor | None, apart: tuple[Tensor, ...] = ()
    ) -> Tensor:
        """By `wna16_mm`, or `outlier_mm` with entries kept apart: their places, columns, values."""
        about = activation, self.words, *self.by_group(), self.code_bits, self.group_size
        if apart:
            return outlier_mm.product(*about, *apart, bias)
        return wna16_mm.product(*about, bias)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        tile = slots.tile_of(self.group_size, self.columns)
        codes = slots.unpack(self.words, self.code_bits, tile, self.columns)
        scales, offsets = self.by_group()
        by_row = None if offsets is None else offsets.T
        size = min(self.group_size, self.columns)
        return wna16_mm.dequantise(codes, scales.T, by_row, self.code_bits, size)


class SlottedTables(Slotted):
    """Codes in words into a table of values, one a row or one for all, perhaps scaled by group."""

    key = "slotted-tables"
    tables: Tensor

    def __init__(
        self, codes: Tensor, tables: Tensor, scales: Dense | None = None, group_size: int = 0
    ) -> None:
        """Hold codes [rows, columns] into tables [rows or 1, 2**bits].

        Args:
            codes: below 2**bits.
            tables: in any floating type.
            scales: [rows, groups], multiplied after the table; None for none.
            group_size: columns that share a scale.

        Raises:
            ValueError: groups of this size fill no words.
        """
        super().__init__(*codes.shape)
        self.code_bits, self.group_size = tables.shape[1].bit_length() - 1, group_size
        tile = slots.tile_of(group_size or self.columns, self.columns)
        self.register_buffer("words", slots.pack(codes, self.code_bits, tile))
        self.register_buffer("tables", tables)
        self.scales = None if scales is None else _turned(scales)

    @property
    def _scales(self) -> Tensor | None:
        return None if self.scales is None else self.scales.values

    def operate(
        self, activation: Tensor, bias: Tensor | None, apart: tuple[Tensor, ...] = ()
    ) -> Tensor:
        """By `lut_mm`."""
        about = self.code_bits, bias, self._scales, self.group_size
        return lut_mm.product(activation, self.words, self.tables, *about, *apart)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        about = self.code_bits, self.columns, self._scales, self.group_size
        return lut_mm.decoded(self.words, self.tables, *about)


class SlottedWithOutliers(Slotted):
    """Codes and entries kept apart, row after row, in one product."""

    key = "slotted-with-outliers"
    places: Tensor
    positions: Tensor
    values: Tensor

    def __init__(self, held: SlottedGroups | SlottedTables, apart: Outliers) -> None:
        super().__init__(*held.shape)
        self.held = held
        self.register_buffer("places", functional.pad(apart.offsets, (1, 0)))
        self.register_buffer("positions", apart.positions)
        self.register_buffer("values", apart.values)

    @property
    def words(self) -> Tensor:
        """Those of the codes."""
        return self.held.words

    def operate(self, activation: Tensor, bias: Tensor | None) -> Tensor:
        """By `outlier_mm` or `lut_mm`."""
        return self.held.operate(activation, bias, (self.places, self.positions, self.values))

    def dense(self) -> Tensor:
        """The matrix in float32."""
        counts = torch.diff(self.places).to(torch.int64)
        row = torch.repeat_interleave(torch.arange(self.rows, device=counts.device), counts)
        found = self.held.dense()
        found[row, self.positions.to(torch.int64)] += self.values.to(torch.float32)
        return found


class SlottedMask(Slotted):
    """Kept values behind bits in words, with a start for each row and tile."""

    key = "slotted-mask"
    starts: Tensor
    values: Tensor

    def __init__(self, weight: Tensor, mask: Tensor) -> None:
        """Hold a weight [rows, columns], in the type of its values, where `mask` is true."""
        super().__init__(*weight.shape)
        words, starts, values = sparse_mm.pack_bitmask(weight, mask)
        self.register_buffer("words", words)
        self.register_buffer("starts", starts)
        self.register_buffer("values", values)

    def operate(self, activation: Tensor, bias: Tensor | None) -> Tensor:
        """By `bitmask_mm`."""
        return sparse_mm.bitmask(activation, self.words, self.starts, self.values, bias)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return sparse_mm.unpack_bitmask(self.words, self.starts, self.values, self.columns)


class SlottedFours(Slotted):
    """Two values of every four neighbours, and codes in words that say which."""

    key = "slotted-fours"
    values: Tensor

    def __init__(self, weight: Tensor, mask: Tensor) -> None:
        """Hold a weight [rows, columns], in the type of its values, two of every four kept."""
        super().__init__(*weight.shape)
        values, words = sparse_mm.pack_fours(weight, mask)
        self.register_buffer("values", values)
        self.register_buffer("words", words)

    def operate(self, activation: Tensor, bias: Tensor | None) -> Tensor:
        """By `sp24_mm`."""
        return sparse_mm.fours(activation, self.values, self.words, bias)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return sparse_mm.unpack_fours(self.values, self.words)


def _turned(numbers: Format) -> Dense:
    """Numbers [rows, groups] as [groups, rows]."""
    assert isinstance(numbers, Dense), "only plain numbers can be turned"
    return Dense.pack(numbers.values.T, numbers.values.dtype)
