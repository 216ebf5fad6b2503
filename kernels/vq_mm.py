"""Products with indices into a codebook of short vectors, read as `kernels.bitpack` packs them."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import bitpack, registry


def decoded(indices: Tensor, codebook: Tensor, length: int) -> Tensor:
    """The numbers [lines, length] in float32 of indices, a plane [lines, bytes]."""
    entries, dimension = codebook.shape
    bits = entries.bit_length() - 1
    places = bitpack.unpack_plane(indices, bits, -(-length // dimension)).to(torch.int64)
    return codebook.to(torch.float32)[places].flatten(1)[:, :length]


def _reference(
    activation: Tensor,
    indices: Tensor,
    codebook: Tensor,
    outputs: int,
    transposed: bool,
    bias: Tensor | None = None,
) -> Tensor:
    length = outputs if transposed else activation.shape[1]
    held = decoded(indices, codebook, length)
    out = activation.to(torch.float32) @ (held if transposed else held.T)
    return (out if bias is None else out + bias.to(torch.float32)).to(activation.dtype)


product = registry.operation(
    "vq_mm(Tensor x, Tensor indices, Tensor codebook, int outputs, bool transposed, "
    "Tensor? bias=None) -> Tensor",
    shape=lambda x, _indices, _codebook, outputs, *_: x.new_empty(x.shape[0], outputs),
    reference=_reference,
    kernel="vq_mm.product",
)
"""Activation [tokens, inputs] times vectors: [tokens, outputs].

`indices`, uint8, hold indices of 1, 2, 4 or 8 bits into `codebook` [2**bits, dimension], a line to
each output whose vectors lie along the inputs; or, `transposed`, a line to each input whose vectors
lie along the outputs.
"""
