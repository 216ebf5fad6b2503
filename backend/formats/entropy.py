"""bfloat16 numbers, bit for bit, their exponents in Huffman codes (DFloat11, arXiv 2504.11651).

Sign and mantissa look random and stay as they are, a byte each; exponents take few values and
so few bits. Decoded when multiplied, one matrix at a time.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from backend.formats.base import empty
from backend.formats.exact import Exact
from kernels import bfloat16, coded, huffman, lossless
from kernels.layout import Matrix


class EntropyCoded(Exact):
    """8 bits an entry, the code of its exponent, and a quarter of a bit for where lanes start."""

    key = "entropy-coded"
    rest: Tensor
    stream: Tensor
    bases: Tensor
    starts: Tensor
    lengths: Tensor

    def __init__(self, rows: int, columns: int, stream: int, first: int, symbols: int) -> None:
        super().__init__(rows, columns)
        self.first = first
        lanes = -(-rows * columns // huffman.LANE)
        self.register_buffer("rest", empty(rows, columns, dtype=torch.uint8))
        self.register_buffer("stream", empty(stream, dtype=torch.uint8))
        self.register_buffer("bases", empty(-(-lanes // huffman.GROUP), dtype=torch.int64))
        self.register_buffer("starts", empty(lanes, dtype=torch.int16))
        self.register_buffer("lengths", empty(symbols, dtype=torch.uint8))

    @classmethod
    def pack(cls, values: Tensor) -> Self:
        """Hold a matrix [rows, columns], bfloat16, of any bits."""
        exponents, rest = bfloat16.taken_apart(values)
        exponents = exponents.flatten()
        counts = torch.bincount(exponents.to(torch.int64), minlength=256)
        used = counts.nonzero().flatten()
        first, last = int(used[0]), int(used[-1])
        lengths = huffman.code_lengths(counts[first : last + 1])
        padding = -exponents.numel() % huffman.LANE
        symbols = functional.pad(
            exponents - first, (0, padding), value=int(counts.argmax()) - first
        )
        stream, bases, starts = huffman.encode(symbols, lengths)
        held = cls(*values.shape, stream.numel(), first, lengths.numel())
        held.rest, held.stream, held.bases = rest, stream, bases
        held.starts, held.lengths = starts, lengths
        return held

    def settings(self) -> dict[str, Any]:
        """Bytes of the stream, the lowest exponent and how many there are from it."""
        stream, symbols = self.stream.numel(), self.lengths.numel()
        return {"stream": stream, "first": self.first, "symbols": symbols}

    def check(self) -> None:
        """Codes are a prefix code and lanes start where a whole lane can be read."""
        lengths = self.lengths.to(torch.int64)
        shares = (2.0 ** -lengths[lengths > 0].double()).sum()
        places = huffman.lane_places(self.bases, self.starts)
        last = 8 * (self.stream.numel() - huffman.WINDOW)
        inside = bool((places >= 0).all() and (places <= last).all())
        if int(lengths.max()) > huffman.LIMIT or shares > 1 or not inside:
            raise ValueError("A stream of exponents cannot be read by its own codes and starts.")

    def exact(self) -> Tensor:
        """The matrix as it was, bfloat16."""
        parts = self.stream, self.bases, self.starts, self.lengths
        if self.on_gpu:
            return lossless.decode(*parts, self.rest, self.first)
        found = huffman.decode(*parts)
        exponents = found.flatten()[: self.rest.numel()].view(self.rest.shape)
        return bfloat16.joined(exponents + self.first, self.rest)

    def matrix(self) -> Matrix | None:
        """Stream and rest where they lie."""
        parts = self.rest, self.stream, self.lengths, self.bases, self.starts
        return coded.entropy(*parts, self.first)

    def take(self, rows: Tensor) -> Tensor:
        """Some rows, of which only the lanes that hold them are decoded."""
        if (matrix := self.lying()) is not None:
            return matrix.take(rows)
        if self.columns % huffman.LANE:
            return self.dense()[rows]
        per_row = self.columns // huffman.LANE
        reach = torch.arange(per_row, device=rows.device)
        lanes = (rows.unsqueeze(1) * per_row + reach).flatten()
        found = huffman.decode_lanes(self.stream, self.bases, self.starts, self.lengths, lanes)
        exponents = found.view(-1, self.columns) + self.first
        return bfloat16.joined(exponents, self.rest[rows]).to(torch.float32)
