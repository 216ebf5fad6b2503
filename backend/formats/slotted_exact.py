"""bfloat16 numbers, bit for bit, as the operation for a GPU takes them; never saved."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from backend.formats.slotted import Slotted
from kernels import lossless_mm


class SlottedExact(Slotted):
    """Signs and mantissas, codes of four bits in tiles, and entries apart, row after row."""

    key = "slotted-exact"
    rest: Tensor
    words: Tensor
    places: Tensor
    positions: Tensor
    values: Tensor

    def __init__(self, weight: Tensor) -> None:
        """Hold a weight [rows, columns], bfloat16."""
        super().__init__(*weight.shape)
        parts = lossless_mm.pack(weight)
        self.base, self._most = parts.base, int(parts.places.diff().max())
        self.register_buffer("rest", parts.rest)
        self.register_buffer("words", parts.codes)
        self.register_buffer("places", parts.places)
        self.register_buffer("positions", parts.columns)
        self.register_buffer("values", parts.values)

    def operate(self, activation: Tensor, bias: Tensor | None) -> Tensor:
        """By `lossless_mm`."""
        return lossless_mm.product(activation, *self._parts(), bias)

    def dense(self) -> Tensor:
        """The matrix in float32."""
        return lossless_mm.unpack(self._parts(), self.columns).to(torch.float32)

    def take(self, rows: Tensor) -> Tensor:
        """Some rows, in float32; nothing in it waits for the GPU."""
        found = lossless_mm.decoded(self.rest[rows], self.words[rows], self.base)
        found = found[:, : self.columns]
        if self._most:
            first, last = (self.places[rows + one].to(torch.int64).unsqueeze(1) for one in (0, 1))
            place = first + torch.arange(self._most, device=rows.device)
            inside = place.clamp(max=len(self.values) - 1)
            # what is of the next row goes into a column behind the last
            column = self.positions[inside].to(torch.int64)
            column = torch.where(place < last, column, self.columns)
            found = functional.pad(found, (0, 1)).scatter_(1, column, self.values[inside])
        return found[:, : self.columns].to(torch.float32)

    def _parts(self) -> lossless_mm.Parts:
        apart = self.places, self.positions, self.values
        return lossless_mm.Parts(self.rest, self.words, self.base, *apart)
