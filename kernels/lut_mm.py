"""The product with codes that point into a table of values, one a row or one for all."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import registry, slots, wna16_mm


def decoded(
    words: Tensor,
    tables: Tensor,
    bits: int,
    columns: int,
    scales: Tensor | None = None,
    group_size: int = 0,
) -> Tensor:
    """The weight [rows, columns] in float32."""
    tile = slots.tile_of(group_size or columns, columns)
    codes = slots.unpack(words, bits, tile, columns).to(torch.int64)
    wide = tables.to(torch.float32)
    weight = wide[0][codes] if len(tables) == 1 else wide.gather(1, codes)
    if scales is None:
        return weight
    return wna16_mm.scaled(weight, scales.T, min(group_size, columns))


def _reference(
    activation: Tensor,
    words: Tensor,
    tables: Tensor,
    bits: int,
    bias: Tensor | None = None,
    scales: Tensor | None = None,
    group_size: int = 0,
    places: Tensor | None = None,
    columns: Tensor | None = None,
    values: Tensor | None = None,
) -> Tensor:
    wide = activation.to(torch.float32)
    out = wide @ decoded(words, tables, bits, activation.shape[1], scales, group_size).T
    if bias is not None:
        out += bias.to(torch.float32)
    if places is not None and columns is not None and values is not None:
        wna16_mm.add_apart(out, wide, places, columns, values)
    return out.to(activation.dtype)


product = registry.operation(
    "lut_mm(Tensor x, Tensor words, Tensor tables, int bits, Tensor? bias=None, "
    "Tensor? scales=None, int group_size=0, Tensor? places=None, Tensor? columns=None, "
    "Tensor? values=None) -> Tensor",
    shape=lambda x, words, *_: x.new_empty(x.shape[0], words.shape[0]),
    reference=_reference,
    kernel="wna16_mm.lut_mm",
)
"""Activation [tokens, columns] times tables [rows or 1, 2**bits] at words of `kernels.slots`.

`scales` [groups, rows] of `group_size` columns are multiplied after the table, and words lie in
tiles of such groups; without, in tiles of 128 columns. `places`, `columns` and `values` are entries
kept apart, as in `kernels.outlier_mm`. Result [tokens, rows].
"""
