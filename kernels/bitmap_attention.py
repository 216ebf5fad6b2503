"""Attention products on states held as kept channels behind a bitmap; nothing is laid out dense.

A token's row keeps the same number of channels as every other; its bitmap says which. After
Mustafar (arXiv 2505.22913), whose kernels compute on the same form.
"""

from __future__ import annotations

from torch import Tensor

from kernels import bitpack


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
    index = places(bitmap, queries.shape[-1], kept.shape[-1]).unsqueeze(-3)
    index = index.expand(*queries.shape[:-1], *index.shape[-2:])
    spread = queries.unsqueeze(-2).expand(*index.shape[:-1], queries.shape[-1])
    return (spread.gather(-1, index) * kept.float().unsqueeze(-3)).sum(-1)


def mix(shares: Tensor, bitmap: Tensor, kept: Tensor, channels: int) -> Tensor:
    """Held values weighted by shares [..., queries, tokens]: [..., queries, channels], float32."""
    index = places(bitmap, channels, kept.shape[-1]).unsqueeze(-3)
    weighted = shares.unsqueeze(-1) * kept.float().unsqueeze(-3)
    mixed = shares.new_zeros(*shares.shape[:-1], channels)
    flat = index.expand_as(weighted).flatten(-2)
    return mixed.scatter_add_(-1, flat, weighted.flatten(-2))
