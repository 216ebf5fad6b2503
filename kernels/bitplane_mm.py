"""Products with signs of one bit an entry: planes with scales of groups, or sizes of two factors.

Signs lie in words of `kernels.slots` at 1 bit, a set bit for +1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import registry, slots, wna16_mm


def signs(words: Tensor, tile: int, columns: int) -> Tensor:
    """+1 and -1 [rows, columns] in float32."""
    return 2.0 * slots.unpack(words, 1, tile, columns).to(torch.float32) - 1.0


def planes_dense(words: Tensor, worth: Tensor, group_size: int, columns: int) -> Tensor:
    """The weight [rows, columns] in float32 of planes, as `planes` takes them."""
    tile, size = slots.tile_of(group_size, columns), min(group_size, columns)
    rows, groups = words.shape[1], worth.shape[1]
    ones = torch.ones(rows, columns, device=words.device)
    total = wna16_mm.scaled(ones, worth[-1].T.view(rows, groups), size)
    for one, scales in zip(words, worth, strict=False):
        total = total + wna16_mm.scaled(signs(one, tile, columns), scales.T, size)
    return total


def _planes(
    activation: Tensor, words: Tensor, worth: Tensor, group_size: int, bias: Tensor | None = None
) -> Tensor:
    return _linear(activation, planes_dense(words, worth, group_size, activation.shape[1]), bias)


def sized_dense(words: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The weight [rows, columns] in float32 of signs and sizes, as `sized` takes them."""
    sizes = left.to(torch.float32) @ right.to(torch.float32)
    return sizes * signs(words, slots.WIDEST_TILE, right.shape[1])


def _sized(
    activation: Tensor, words: Tensor, left: Tensor, right: Tensor, bias: Tensor | None = None
) -> Tensor:
    return _linear(activation, sized_dense(words, left, right), bias)


def _linear(activation: Tensor, dense: Tensor, bias: Tensor | None) -> Tensor:
    out = activation.to(torch.float32) @ dense.T
    return (out if bias is None else out + bias.to(torch.float32)).to(activation.dtype)


planes = registry.operation(
    "bitplane_mm(Tensor x, Tensor words, Tensor worth, int group_size, Tensor? bias=None) "
    "-> Tensor",
    shape=lambda x, words, *_: x.new_empty(x.shape[0], words.shape[1]),
    reference=_planes,
    kernel="bitplane_mm.planes",
)
"""Activation [tokens, columns] times words [planes, rows, count]: [tokens, rows].

`worth` [planes + 1, groups, rows] is what a plane's signs count in each group of `group_size`
columns, and last what is added to every entry. Words lie in tiles of such groups.
"""

sized = registry.operation(
    "signs_mm(Tensor x, Tensor words, Tensor left, Tensor right, Tensor? bias=None) -> Tensor",
    shape=lambda x, words, *_: x.new_empty(x.shape[0], words.shape[0]),
    reference=_sized,
    kernel="bitplane_mm.sized",
)
"""Activation [tokens, columns] times words [rows, count] whose signs stand before the sizes
`left` [rows, rank] times `right` [rank, columns]: [tokens, rows]. Tiles have 128 columns."""
