"""Activation times a weight held as integer groups; the weight is exact, the activation 16 bits.

weight[n, k] = (code[n, k] - 2**(bits - 1)) * scale[n, k // group] + offset[n, k // group]

The reference turns the weight into a dense matrix. On a CPU torch has two packed products,
and both take bfloat16 activations alone (with float32 they are 15 to 500 times slower):
`_weight_int8pack_mm` for 8 bits with one scale a row, `_weight_int4pack_mm_for_cpu` for 4 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kernels import registry, slots

FEW_ROWS = 8  # above it, dequantise and multiply is faster than torch's 4-bit product
INT4_GROUPS = (32, 64, 128, 256)


def dequantise(
    codes: Tensor, scales: Tensor, offsets: Tensor | None, bits: int, group_size: int
) -> Tensor:
    """Dense float32 weight [rows, columns] of codes [rows, columns] and per-group values."""
    weight = codes.to(torch.float32) - float(1 << (bits - 1))
    return scaled(weight, scales, group_size, offsets)


def scaled(
    weight: Tensor, scales: Tensor, group_size: int, offsets: Tensor | None = None
) -> Tensor:
    """A float32 weight [rows, columns] times per-group scales [rows, groups], plus offsets."""
    rows, columns = weight.shape
    groups = scales.shape[1]
    if groups * group_size != columns:
        weight = functional.pad(weight, (0, groups * group_size - columns))
    weight = weight.view(rows, groups, group_size)
    weight *= scales.to(torch.float32).unsqueeze(-1)
    if offsets is not None:
        weight += offsets.to(torch.float32).unsqueeze(-1)
    return weight.view(rows, -1)[:, :columns]


def add_apart(
    out: Tensor, activation: Tensor, places: Tensor, columns: Tensor, values: Tensor
) -> Tensor:
    """Add entries kept apart, row after row, to a product [tokens, rows], in place."""
    counts = torch.diff(places).to(torch.int64)
    row = torch.repeat_interleave(torch.arange(out.shape[1], device=out.device), counts)
    apart = activation[:, columns.to(torch.int64)] * values.to(torch.float32)
    return out.index_add_(1, row, apart)


def int8_ready(columns: int, bits: int, groups: int, symmetric: bool, device: torch.device) -> bool:
    """Whether torch's 8-bit product takes this weight as it lies in memory.

    With a number of columns that 32 does not divide, torch 2.13 reads past the row's end.
    """
    fits = columns % 32 == 0 and groups == 1 and symmetric
    return bits == 8 and fits and device.type == "cpu"


def int8_matmul(activation: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """bfloat16 activation [tokens, columns] times int8 codes [rows, columns], one scale a row."""
    return torch.ops.aten._weight_int8pack_mm(activation, codes, scales)


def int4_ready(rows: int, columns: int, bits: int, group_size: int, device: torch.device) -> bool:
    """Whether torch's 4-bit product can hold a weight of this shape."""
    fits = rows % 64 == 0 and columns % group_size == 0 and group_size in INT4_GROUPS
    return bits == 4 and fits and device.type == "cpu"


def int4_pack(codes: Tensor) -> Tensor:
    """Reorder codes [rows, columns] into the layout of torch's 4-bit product, same bytes."""
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), 1)


def int4_scales(scales: Tensor, offsets: Tensor | None) -> Tensor:
    """Scales and offsets [rows, groups] as torch's 4-bit product wants them: [groups, rows, 2]."""
    offsets = torch.zeros_like(scales) if offsets is None else offsets
    return torch.stack([scales.T, offsets.T], dim=-1).to(torch.bfloat16).contiguous()


def int4_matmul(activation: Tensor, packed: Tensor, group_size: int, scales: Tensor) -> Tensor:
    """bfloat16 activation [tokens, columns] times a weight from `int4_pack`."""
    return torch.ops.aten._weight_int4pack_mm_for_cpu(activation, packed, group_size, scales)


def _slotted(
    activation: Tensor,
    words: Tensor,
    scales: Tensor,
    offsets: Tensor | None,
    bits: int,
    group_size: int,
    bias: Tensor | None = None,
    down: Tensor | None = None,
    up: Tensor | None = None,
) -> Tensor:
    columns = activation.shape[1]
    codes = slots.unpack(words, bits, slots.tile_of(group_size, columns), columns)
    size = min(group_size, columns)
    weight = dequantise(codes, scales.T, None if offsets is None else offsets.T, bits, size)
    wide = activation.to(torch.float32)
    out = wide @ weight.T
    if bias is not None:
        out += bias.to(torch.float32)
    if down is not None and up is not None:
        out += (wide @ down.to(torch.float32).T) @ up.to(torch.float32).T
    return out.to(activation.dtype)


product = registry.operation(
    "wna16_mm(Tensor x, Tensor words, Tensor scales, Tensor? offsets, int bits, int group_size, "
    "Tensor? bias=None, Tensor? down=None, Tensor? up=None) -> Tensor",
    shape=lambda x, words, *_: x.new_empty(x.shape[0], words.shape[0]),
    reference=_slotted,
    kernel="wna16_mm.wna16_mm",
)
"""Activation [tokens, columns] times words of `kernels.slots`: [tokens, rows].

Scales and offsets lie by group, [groups, rows]; `bias` [rows] and the low-rank part `up` [rows,
rank] times `down` [rank, columns] are added before the sum is rounded.
"""
