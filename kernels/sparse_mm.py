"""Products with sparse weights as they lie: any pattern behind bits, or two of every four.

Bits lie in words of `kernels.slots` at 1 bit, tiles of 128 columns; the kept values follow each
other in order of word and then of slot, with a start for each row and tile. Of every four
columns two values are kept, the first of all fours [rows, columns / 4] and the second; a code of
4 bits, in words again, says which: first + 4 * second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import registry, slots

TILE = slots.WIDEST_TILE
COUNT = TILE // 16


def pack_bitmask(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Words, starts [rows, tiles], int32, and kept values of a weight [rows, columns]."""
    rows, columns = weight.shape
    padding = slots.padded_columns(columns, TILE) - columns
    by_word = _by_word(torch.nn.functional.pad(weight, (0, padding)))
    kept = _by_word(torch.nn.functional.pad(mask, (0, padding)))
    counts = kept.view(rows, -1, TILE).sum(2)
    starts = (counts.flatten().cumsum(0) - counts.flatten()).view(rows, -1).to(torch.int32)
    return slots.pack(mask.to(torch.int32), 1, TILE), starts, by_word[kept]


def _by_word(matrix: Tensor) -> Tensor:
    """Columns of each tile in order of their word, then of their slot."""
    return matrix.view(matrix.shape[0], -1, 16, COUNT).transpose(2, 3).flatten(1)


def pack_fours(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Values [2, rows, columns / 4] and words of a weight of which two in every four are kept.

    Raises:
        ValueError: not exactly two are.
    """
    rows, columns = weight.shape
    fours = mask.view(rows, columns // 4, 4) if columns % 4 == 0 else None
    if fours is None or not bool((fours.sum(-1) == 2).all()):
        raise ValueError("A 2:4 mask keeps exactly two of every four neighbours in a row.")
    places = fours.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :2]
    values = weight.view(rows, -1, 4).gather(2, places)
    codes = places[..., 0] + 4 * places[..., 1]
    return values.permute(2, 0, 1).contiguous(), slots.pack(codes, 4, TILE)


def _bitmask(
    activation: Tensor, words: Tensor, starts: Tensor, values: Tensor, bias: Tensor | None = None
) -> Tensor:
    return _linear(activation, unpack_bitmask(words, starts, values, activation.shape[1]), bias)


def unpack_bitmask(words: Tensor, starts: Tensor, values: Tensor, columns: int) -> Tensor:
    """Undo `pack_bitmask`: the weight [rows, columns] in float32."""
    padded = starts.shape[1] * TILE
    kept = _by_word(slots.unpack(words, 1, TILE, padded)).to(torch.bool)
    spread = torch.zeros(kept.shape, device=words.device)
    spread[kept] = values.to(torch.float32)
    return spread.view(len(words), -1, COUNT, 16).transpose(2, 3).flatten(1)[:, :columns]


def _fours(activation: Tensor, values: Tensor, words: Tensor, bias: Tensor | None = None) -> Tensor:
    return _linear(activation, unpack_fours(values, words), bias)


def unpack_fours(values: Tensor, words: Tensor) -> Tensor:
    """Undo `pack_fours`: the weight [rows, columns] in float32."""
    _, rows, count = values.shape
    codes = slots.unpack(words, 4, TILE, count).to(torch.int64)
    places = torch.stack([codes & 3, codes >> 2], 2)
    dense = torch.zeros(rows, count, 4, device=values.device)
    dense.scatter_(2, places, values.permute(1, 2, 0).to(torch.float32))
    return dense.flatten(1)


def _linear(activation: Tensor, dense: Tensor, bias: Tensor | None) -> Tensor:
    out = activation.to(torch.float32) @ dense.T
    return (out if bias is None else out + bias.to(torch.float32)).to(activation.dtype)


bitmask = registry.operation(
    "bitmask_mm(Tensor x, Tensor words, Tensor starts, Tensor values, Tensor? bias=None) -> Tensor",
    shape=lambda x, words, *_: x.new_empty(x.shape[0], words.shape[0]),
    reference=_bitmask,
    kernel="sparse_mm.bitmask",
)
"""Activation [tokens, columns] times what `pack_bitmask` made: [tokens, rows]."""

fours = registry.operation(
    "sp24_mm(Tensor x, Tensor values, Tensor words, Tensor? bias=None) -> Tensor",
    shape=lambda x, values, *_: x.new_empty(x.shape[0], values.shape[1]),
    reference=_fours,
    kernel="sparse_mm.fours",
)
"""Activation [tokens, columns] times what `pack_fours` made: [tokens, rows]."""
