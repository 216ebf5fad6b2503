"""Attention products on states held as kept channels behind a bitmap; nothing is laid out dense.

A token's row keeps the same number of channels as every other; its bitmap says which. After
Mustafar (arXiv 2505.22913), whose kernels compute on the same form. On a CPU the extension reads
values in bfloat16 where they lie; elsewhere torch gathers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from kernels import bitpack, extension
from kernels.rooms import Address, Number, States


class _Kept(ctypes.Structure):
    _fields_ = (
        ("bitmap", Address),
        ("values", Address),
        *((name, Number) for name in ("pairs", "tokens", "channels", "kept")),
    )


def _held(bitmap: Tensor, kept: Tensor, channels: int) -> _Kept | None:
    """As the extension reads them, if it does."""
    parts = bitmap, kept
    usual = all(part.device.type == "cpu" and part.is_contiguous() for part in parts)
    if not usual or kept.dtype != torch.bfloat16 or extension.library() is None:
        return None
    tokens, count = kept.shape[-2:]
    pairs = kept.numel() // max(1, tokens * count)
    return _Kept(bitmap.data_ptr(), kept.data_ptr(), pairs, tokens, channels, count)


def read(bitmap: Tensor, kept: Tensor, channels: int) -> States:
    """How a decode step reads values in bfloat16 that bitmaps mark."""
    return States("read_kept", _held(bitmap, kept, channels), (bitmap, kept))


def largest(states: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """Bitmaps [..., bytes] and values [..., count] in bfloat16 of the largest channels.

    None where the extension does not look for them.
    """
    usual = states.device.type == "cpu" and states.dtype in (torch.float32, torch.bfloat16)
    if not usual or extension.library() is None or not 0 < count <= states.shape[-1]:
        return None
    plain = states.to(torch.float32).contiguous()
    *outer, channels = plain.shape
    bitmap = torch.empty(*outer, bitpack.packed_columns(channels, 1), dtype=torch.uint8)
    values = torch.empty(*outer, count, dtype=torch.bfloat16)
    extension.library().hold_kept(
        Address(plain.data_ptr()), Number(plain.numel() // channels), Number(channels),
        Number(count), Address(bitmap.data_ptr()), Address(values.data_ptr()),
    )  # fmt: skip
    return bitmap, values


def places(bitmap: Tensor, channels: int, kept: int) -> Tensor:
    """Channels [..., tokens, kept] that bitmaps [..., tokens, bytes] mark, in ascending order."""
    marks = bitpack.unpack_plane(bitmap.flatten(0, -2), 1, channels)
    return marks.nonzero()[:, 1].view(*bitmap.shape[:-1], kept)


def scores(queries: Tensor, bitmap: Tensor, kept: Tensor) -> Tensor:
    """Products [..., queries, tokens] of queries [..., queries, channels] with held keys.

    Args:
        queries: float32.
        bitmap: bytes [..., tokens, ceil(channels / 8)].
        kept: values [..., tokens, kept] of the marked channels.
    """
    if held := _held(bitmap, kept, queries.shape[-1]):
        return _asked(extension.library().score_kept, held, queries.contiguous(), kept.shape[-2])
    index = places(bitmap, queries.shape[-1], kept.shape[-1]).unsqueeze(-3)
    index = index.expand(*queries.shape[:-1], *index.shape[-2:])
    spread = queries.unsqueeze(-2).expand(*index.shape[:-1], queries.shape[-1])
    return (spread.gather(-1, index) * kept.float().unsqueeze(-3)).sum(-1)


def mix(shares: Tensor, bitmap: Tensor, kept: Tensor, channels: int) -> Tensor:
    """Held values weighted by shares [..., queries, tokens]: [..., queries, channels], float32."""
    if held := _held(bitmap, kept, channels):
        return _asked(extension.library().mix_kept, held, shares.float().contiguous(), channels)
    index = places(bitmap, channels, kept.shape[-1]).unsqueeze(-3)
    weighted = shares.unsqueeze(-1) * kept.float().unsqueeze(-3)
    mixed = shares.new_zeros(*shares.shape[:-1], channels)
    flat = index.expand_as(weighted).flatten(-2)
    return mixed.scatter_add_(-1, flat, weighted.flatten(-2))


def _asked(function: Callable[..., None], held: _Kept, given: Tensor, width: int) -> Tensor:
    """What a function of the extension makes of [..., queries, a]: [..., queries, width]."""
    found = torch.empty(*given.shape[:-1], width)
    function(
        ctypes.byref(held), Address(given.data_ptr()), Number(given.shape[-2]),
        Address(found.data_ptr()),
    )  # fmt: skip
    return found
