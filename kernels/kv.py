"""Keys and values held as codes, and attention over them for one new token.

States lie as [heads, tokens, channels], where heads are those of all texts one after another.
Codes of 2, 4 or 8 bits lie in words of `kernels.slots`, a token's channels in one tile. A scale
and an offset, bfloat16, belong to a channel of `group` tokens, [heads, tokens / group, channels],
or with group 0 to a token, [heads, tokens, 1]. state = code * scale + offset.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import registry, slots

WIDTHS = (2, 4, 8)
SMALLEST = 1e-8


def check(channels: int, bits: int, group: int) -> None:
    """Refuse what the layout does not hold.

    Raises:
        ValueError: with what there is instead.
    """
    if channels < 16 or channels & (channels - 1):
        raise ValueError(f"Heads of {channels} channels fill no words; a power of two does.")
    if bits not in WIDTHS:
        raise ValueError(f"States are held in 2, 4 or 8 bits, not {bits}.")
    if group and (group < 16 or group & (group - 1)):
        raise ValueError(f"Groups are powers of two from 16 tokens on, or 0; not {group}.")


def _quantised(states: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    heads, tokens, channels = states.shape
    check(channels, bits, group)
    if group and tokens % group:
        raise ValueError(f"{tokens} tokens are no whole groups of {group}.")
    wide = states.to(torch.float32)
    grouped = wide.view(heads, tokens // group, group, channels) if group else wide
    over = 2
    low, high = grouped.amin(over, keepdim=True), grouped.amax(over, keepdim=True)
    scales = ((high - low) / ((1 << bits) - 1)).clamp(min=SMALLEST).to(torch.bfloat16)
    offsets = low.to(torch.bfloat16)
    codes = ((grouped - offsets.float()) / scales.float()).round().clamp(0, (1 << bits) - 1)
    words = slots.pack(codes.reshape(-1, channels), bits, channels).view(heads, tokens, -1)
    if group:
        return words, scales.squeeze(2), offsets.squeeze(2)
    return words, scales, offsets


def _quantised_shapes(states: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    heads, tokens, channels = states.shape
    shared = (heads, tokens // group, channels) if group else (heads, tokens, 1)
    words = states.new_empty((heads, tokens, channels * bits // 16), dtype=torch.int16)
    scales = states.new_empty(shared, dtype=torch.bfloat16)
    return words, scales, torch.empty_like(scales)


def _append(
    states: Tensor,
    words: Tensor,
    scales: Tensor,
    offsets: Tensor,
    position: int,
    bits: int,
    group: int,
) -> None:
    check_place(states, words, position, group)
    parts = _quantised(states, bits, group)
    first = position // group if group else position
    for held, new, begin in zip(
        (words, scales, offsets), parts, (position, first, first), strict=True
    ):
        held[:, begin : begin + new.shape[1]] = new


def check_place(states: Tensor, words: Tensor, position: int, group: int) -> None:
    """Refuse tokens that find no room or begin within a group.

    Raises:
        ValueError: with the room there is.
    """
    tokens, room = states.shape[1], words.shape[1]
    if position < 0 or position + tokens > room:
        raise ValueError(f"{tokens} tokens from {position} on exceed the room for {room}.")
    if group and (position % group or tokens % group):
        raise ValueError(f"Tokens come in whole groups of {group}.")


def _dequantised(
    words: Tensor, scales: Tensor, offsets: Tensor, bits: int, group: int, like: Tensor
) -> Tensor:
    heads, tokens, count = words.shape
    channels = count * 16 // bits
    codes = slots.unpack(words.reshape(-1, count), bits, channels, channels).view(
        heads, tokens, channels
    )
    scales, offsets = scales.to(torch.float32), offsets.to(torch.float32)
    if group:
        scales = scales.repeat_interleave(group, 1)[:, :tokens]
        offsets = offsets.repeat_interleave(group, 1)[:, :tokens]
    return (codes.to(torch.float32) * scales + offsets).to(like.dtype)


def _attention(
    queries: Tensor,
    key_words: Tensor,
    key_scales: Tensor,
    key_offsets: Tensor,
    value_words: Tensor,
    value_scales: Tensor,
    value_offsets: Tensor,
    tokens: int,
    key_bits: int,
    value_bits: int,
    group: int,
    scale: float,
    keep: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    texts, asked, channels = queries.shape
    wide = queries.to(torch.float32)
    keys = _dequantised(key_words, key_scales, key_offsets, key_bits, group, wide)[:, :tokens]
    values = _dequantised(value_words, value_scales, value_offsets, value_bits, 0, wide)
    heads = keys.shape[0] // texts
    grouped = wide.view(texts * heads, asked // heads, channels)
    scores = (grouped @ keys.transpose(1, 2)) * scale
    if keep is not None:
        scores = scores.masked_fill(~keep[:, None, :tokens].to(torch.bool), -torch.inf)
    sums = scores.logsumexp(-1)
    shares = (scores - sums.unsqueeze(-1)).exp().nan_to_num(0.0)
    found = shares @ values[:, :tokens]
    return found.view(queries.shape).to(queries.dtype), sums.view(texts, asked)


quantise = registry.operation(
    "kv_quant(Tensor states, int bits, int group) -> (Tensor, Tensor, Tensor)",
    shape=_quantised_shapes,
    reference=_quantised,
    kernel="kv.quantise",
)
"""Words, scales and offsets of states [heads, tokens, channels]."""

append = registry.operation(
    "kv_append(Tensor states, Tensor(a!) words, Tensor(b!) scales, Tensor(c!) offsets, "
    "SymInt position, int bits, int group) -> ()",
    shape=lambda *_: None,
    reference=_append,
    kernel="kv.append",
)
"""Quantise states into room that is there, from token `position` on."""

dequantise = registry.operation(
    "kv_dequant(Tensor words, Tensor scales, Tensor offsets, int bits, int group, Tensor like) "
    "-> Tensor",
    shape=lambda words, _scales, _offsets, bits, _group, like: like.new_empty(
        *words.shape[:2], words.shape[2] * 16 // bits
    ),
    reference=_dequantised,
    kernel="kv.dequantise",
)
"""States [heads, tokens, channels] in the type of `like`."""

attention = registry.operation(
    "kv_decode_attn(Tensor queries, Tensor key_words, Tensor key_scales, Tensor key_offsets, "
    "Tensor value_words, Tensor value_scales, Tensor value_offsets, SymInt tokens, int key_bits, "
    "int value_bits, int group, float scale, Tensor? keep=None) -> (Tensor, Tensor)",
    shape=lambda queries, *_: (
        torch.empty_like(queries),
        queries.new_empty(queries.shape[:2], dtype=torch.float32),
    ),
    reference=_attention,
    kernel="kv.attention",
)
"""Attention of one token a text over the first `tokens` held ones; groups are those of the keys.

Queries [texts, query heads, channels], of which equal runs ask one held head; `keep` [heads,
tokens], uint8, is 0 where a token is not seen. Returns what is found, as the queries, and the
logarithm of the sum of exponentials [texts, query heads], float32, by which it is joined with
attention over other tokens; -inf and zeros where nothing is seen.
"""
