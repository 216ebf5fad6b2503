"""bfloat16 numbers from their exponents' Huffman codes and their other bits; exact to the bit."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import bfloat16, huffman, registry


def _decoded(
    stream: Tensor, bases: Tensor, starts: Tensor, lengths: Tensor, rest: Tensor, first: int
) -> Tensor:
    found = huffman.decode(stream, bases, starts, lengths).flatten()[: rest.numel()]
    return bfloat16.joined(found.view(rest.shape) + first, rest)


decode = registry.operation(
    "lossless_decode(Tensor stream, Tensor bases, Tensor starts, Tensor lengths, Tensor rest, "
    "int first) -> Tensor",
    shape=lambda _stream, _bases, _starts, _lengths, rest, _first: torch.empty_like(
        rest, dtype=torch.bfloat16
    ),
    reference=_decoded,
    kernel="huffman.decode",
)
"""The matrix [rows, columns], bfloat16.

Stream, bases, starts and lengths are those of `kernels.huffman`, whose symbols count from the
exponent `first`; `rest` [rows, columns], uint8, holds the sign above seven bits of mantissa.
"""
