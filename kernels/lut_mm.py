"""The product with codes that point into a table of values, one table a row."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import registry, slots


def _reference(
    activation: Tensor, words: Tensor, tables: Tensor, bits: int, bias: Tensor | None = None
) -> Tensor:
    columns = activation.shape[1]
    codes = slots.unpack(words, bits, slots.WIDEST_TILE, columns)
    weight = tables.to(torch.float32).gather(1, codes.to(torch.int64))
    out = activation.to(torch.float32) @ weight.T
    return (out if bias is None else out + bias.to(torch.float32)).to(activation.dtype)


product = registry.operation(
    "lut_mm(Tensor x, Tensor words, Tensor tables, int bits, Tensor? bias=None) -> Tensor",
    shape=lambda x, words, *_: x.new_empty(x.shape[0], words.shape[0]),
    reference=_reference,
    kernel="wna16_mm.lut_mm",
)
"""Activation [tokens, columns] times tables [rows, 2**bits] at words of `kernels.slots` in tiles
of 128 columns: [tokens, rows]."""
