"""The product with integer groups of which some entries are kept apart, row after row."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import registry, wna16_mm


def _reference(
    activation: Tensor,
    words: Tensor,
    scales: Tensor,
    offsets: Tensor | None,
    bits: int,
    group_size: int,
    places: Tensor,
    columns: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    wide = activation.to(torch.float32)
    base = wna16_mm.product(wide, words, scales, offsets, bits, group_size, bias)
    return wna16_mm.add_apart(base, wide, places, columns, values).to(activation.dtype)


product = registry.operation(
    "outlier_mm(Tensor x, Tensor words, Tensor scales, Tensor? offsets, int bits, int group_size, "
    "Tensor places, Tensor columns, Tensor values, Tensor? bias=None) -> Tensor",
    shape=lambda x, words, *_: x.new_empty(x.shape[0], words.shape[0]),
    reference=_reference,
    kernel="wna16_mm.outlier_mm",
)
"""`kernels.wna16_mm.product` plus the entries kept apart.

Entries of row n are `values[places[n]:places[n + 1]]` at those `columns`: int32 [rows + 1], int32
or uint16 and 16-bit [entries].
"""
