"""Keys and values as codes: quantise, append, decode, and attend to them; see `kernels.kv`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import kv
from kernels.triton.common import dot

TOKENS = 32  # a program's where no group says otherwise
EVEN = tl.constexpr(12582912.0)  # 1.5 * 2**23: adding it rounds a float32 to even


@triton.jit
def narrow(value):
    """A finite float32 rounded to the nearest bfloat16, even on a tie; the interpreter cuts off."""
    bits = value.to(tl.int32, bitcast=True)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits & -65536).to(tl.float32, bitcast=True)


@triton.jit
def bounds(low, high, LEVELS: tl.constexpr, SMALLEST: tl.constexpr):
    """Scale and offset of a range, rounded to bfloat16 as they are held."""
    return narrow(tl.maximum((high - low) / LEVELS, SMALLEST)), narrow(low)


@triton.jit
def quantise_kernel(
    states,
    words,
    scales,
    offsets,
    tokens,
    room,
    position,
    shared_room,
    BITS: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUPED: tl.constexpr,
    SMALLEST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One head's BLOCK tokens; with GROUPED they are one group."""
    COUNT: tl.constexpr = CHANNELS * BITS // 16
    SLOTS: tl.constexpr = 16 // BITS
    LEVELS: tl.constexpr = (1 << BITS) - 1
    head, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    t = block * BLOCK + tl.arange(0, BLOCK)
    inside = (t < tokens)[:, None]
    word = tl.arange(0, COUNT)
    source = states + (head * tokens + t)[:, None] * CHANNELS + word[None, :]
    if not GROUPED:
        low = tl.full((BLOCK,), float("inf"), tl.float32)
        high = tl.full((BLOCK,), float("-inf"), tl.float32)
        for j in tl.static_range(SLOTS):
            x = tl.load(source + j * COUNT, mask=inside, other=0.0).to(tl.float32)
            low = tl.minimum(low, tl.min(x, axis=1))
            high = tl.maximum(high, tl.max(x, axis=1))
        scale_t, offset_t = bounds(low, high, LEVELS, SMALLEST)
        place = head * shared_room + position + t
        tl.store(scales + place, scale_t.to(tl.bfloat16), mask=t < tokens)
        tl.store(offsets + place, offset_t.to(tl.bfloat16), mask=t < tokens)
    packed = tl.zeros((BLOCK, COUNT), dtype=tl.int32)
    for j in tl.static_range(SLOTS):
        x = tl.load(source + j * COUNT, mask=inside, other=0.0).to(tl.float32)
        if GROUPED:
            scale_c, offset_c = bounds(tl.min(x, axis=0), tl.max(x, axis=0), LEVELS, SMALLEST)
            place = (head * shared_room + position // BLOCK + block) * CHANNELS + j * COUNT + word
            tl.store(scales + place, scale_c.to(tl.bfloat16))
            tl.store(offsets + place, offset_c.to(tl.bfloat16))
            code = (x - offset_c[None, :]) / scale_c[None, :]
        else:
            code = (x - offset_t[:, None]) / scale_t[:, None]
        code = tl.minimum(tl.maximum((code + EVEN) - EVEN, 0.0), LEVELS)
        packed |= code.to(tl.int32) << (j * BITS)
    target = words + (head * room + position + t)[:, None] * COUNT + word[None, :]
    tl.store(target, packed.to(tl.int16), mask=inside)


@triton.jit
def states_of(words, inside, BITS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Codes [BLOCK, CHANNELS] in float32 of tokens whose words begin at `words` [BLOCK, 1]."""
    COUNT: tl.constexpr = CHANNELS * BITS // 16
    held = tl.load(words + tl.arange(0, COUNT)[None, :], mask=inside, other=0).to(tl.int32)
    shift = tl.arange(0, 16 // BITS) * BITS
    codes = (held[:, None, :] >> shift[None, :, None]) & ((1 << BITS) - 1)
    return tl.reshape(codes, (BLOCK, CHANNELS)).to(tl.float32)


@triton.jit
def dequantise_kernel(
    words,
    scales,
    offsets,
    out,
    tokens,
    shared_room,
    BITS: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUPED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One head's BLOCK tokens."""
    COUNT: tl.constexpr = CHANNELS * BITS // 16
    head, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    t = block * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, CHANNELS)
    inside = (t < tokens)[:, None]
    x = states_of(words + (head * tokens + t)[:, None] * COUNT, inside, BITS, CHANNELS, BLOCK)
    if GROUPED:
        place = (head * shared_room + block) * CHANNELS + c
        scale = tl.load(scales + place).to(tl.float32)[None, :]
        offset = tl.load(offsets + place).to(tl.float32)[None, :]
    else:
        place = (head * shared_room + t)[:, None]
        scale = tl.load(scales + place, mask=inside, other=0.0).to(tl.float32)
        offset = tl.load(offsets + place, mask=inside, other=0.0).to(tl.float32)
    target = out + (head * tokens + t)[:, None] * CHANNELS + c[None, :]
    tl.store(target, (x * scale + offset).to(out.dtype.element_ty), mask=inside)


@triton.jit
def attention_kernel(
    queries,
    key_words,
    key_scales,
    key_offsets,
    value_words,
    value_scales,
    value_offsets,
    keep,
    parts,
    sums,
    tokens,
    key_room,
    value_room,
    shared_room,
    keep_room,
    scale,
    KEY_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUPED: tl.constexpr,
    KEEP: tl.constexpr,
    ASKED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One held head and one share of its tokens, for all ASKED query heads that ask it."""
    KEY_COUNT: tl.constexpr = CHANNELS * KEY_BITS // 16
    VALUE_COUNT: tl.constexpr = CHANNELS * VALUE_BITS // 16
    head, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = tl.arange(0, ROWS)
    c = tl.arange(0, CHANNELS)
    asked = row < ASKED
    place = (head * ASKED + row)[:, None] * CHANNELS + c[None, :]
    q = tl.load(queries + place, mask=asked[:, None], other=0.0)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    mass = tl.zeros((ROWS,), dtype=tl.float32)
    total = tl.zeros((ROWS, CHANNELS), dtype=tl.float32)
    blocks = tl.cdiv(tokens, BLOCK)
    share = tl.cdiv(blocks, SPLITS)
    for block in range(split * share, tl.minimum(split * share + share, blocks)):
        t = block * BLOCK + tl.arange(0, BLOCK)
        seen = t < tokens
        inside = seen[:, None]
        start = key_words + (head * key_room + t)[:, None] * KEY_COUNT
        keys = states_of(start, inside, KEY_BITS, CHANNELS, BLOCK)
        if GROUPED:
            at = (head * shared_room + block) * CHANNELS + c
            keys = keys * tl.load(key_scales + at).to(tl.float32)[None, :]
            keys += tl.load(key_offsets + at).to(tl.float32)[None, :]
        else:
            at = (head * shared_room + t)[:, None]
            keys = keys * tl.load(key_scales + at, mask=inside, other=0.0).to(tl.float32)
            keys += tl.load(key_offsets + at, mask=inside, other=0.0).to(tl.float32)
        zeros = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
        scores = dot(q, tl.trans(keys.to(q.dtype)), zeros) * scale
        if KEEP:
            seen &= tl.load(keep + head * keep_room + t, mask=seen, other=0) != 0
        scores = tl.where(seen[None, :], scores, float("-inf"))
        now = tl.maximum(top, tl.max(scores, axis=1))
        safe = tl.where(now == float("-inf"), 0.0, now)
        weights = tl.exp(scores - safe[:, None])
        fade = tl.exp(top - safe)
        start = value_words + (head * value_room + t)[:, None] * VALUE_COUNT
        values = states_of(start, inside, VALUE_BITS, CHANNELS, BLOCK)
        at = (head * value_room + t)[:, None]
        values = values * tl.load(value_scales + at, mask=inside, other=0.0).to(tl.float32)
        values += tl.load(value_offsets + at, mask=inside, other=0.0).to(tl.float32)
        total = dot(weights.to(q.dtype), values.to(q.dtype), total * fade[:, None])
        mass = mass * fade + tl.sum(weights, axis=1)
        top = now
    some = mass > 0
    at = (head * ASKED + row) * SPLITS + split
    total = total / tl.where(some, mass, 1.0)[:, None]
    tl.store(parts + at[:, None] * CHANNELS + c[None, :], total, mask=asked[:, None])
    found = tl.where(some, top + tl.log(tl.where(some, mass, 1.0)), float("-inf"))
    tl.store(sums + at, found, mask=asked)


@triton.jit
def join_kernel(parts, sums, out, whole, CHANNELS: tl.constexpr, SPLITS: tl.constexpr):
    """Join the shares of one query head."""
    row = tl.program_id(0).to(tl.int64)
    split, c = tl.arange(0, SPLITS), tl.arange(0, CHANNELS)
    held = tl.load(sums + row * SPLITS + split)
    top = tl.max(held, axis=0)
    safe = tl.where(top == float("-inf"), 0.0, top)
    weight = tl.exp(held - safe)
    mass = tl.sum(weight, axis=0)
    place = (row * SPLITS + split)[:, None] * CHANNELS + c[None, :]
    found = tl.sum(tl.load(parts + place) * weight[:, None], axis=0)
    found = found / tl.where(mass > 0, mass, 1.0)
    tl.store(out + row * CHANNELS + c, found.to(out.dtype.element_ty))
    log = tl.log(tl.where(mass > 0, mass, 1.0))
    tl.store(whole + row, tl.where(mass > 0, safe + log, float("-inf")))


def quantise(states: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `kernels.kv.quantise`."""
    heads, tokens, channels = states.shape
    kv.check(channels, bits, group)
    shape = heads, tokens, channels * bits // 16
    words = torch.empty(shape, dtype=torch.int16, device=states.device)
    shared = (heads, tokens // group, channels) if group else (heads, tokens, 1)
    scales = torch.empty(shared, dtype=torch.bfloat16, device=states.device)
    offsets = torch.empty_like(scales)
    append(states, words, scales, offsets, 0, bits, group)
    return words, scales, offsets


def append(
    states: Tensor,
    words: Tensor,
    scales: Tensor,
    offsets: Tensor,
    position: int,
    bits: int,
    group: int,
) -> None:
    """As `kernels.kv.append`."""
    heads, tokens, channels = states.shape
    kv.check(channels, bits, group)
    kv.check_place(states, words, position, group)
    block = group or TOKENS
    quantise_kernel[(heads, triton.cdiv(tokens, block))](
        states.contiguous(),
        words,
        scales,
        offsets,
        tokens,
        words.shape[1],
        position,
        scales.shape[1],
        BITS=bits,
        CHANNELS=channels,
        GROUPED=bool(group),
        SMALLEST=kv.SMALLEST,
        BLOCK=block,
        num_warps=4,
    )


def dequantise(
    words: Tensor, scales: Tensor, offsets: Tensor, bits: int, group: int, like: Tensor
) -> Tensor:
    """As `kernels.kv.dequantise`."""
    heads, tokens, count = words.shape
    channels = count * 16 // bits
    block = group or TOKENS
    out = torch.empty((heads, tokens, channels), dtype=like.dtype, device=words.device)
    dequantise_kernel[(heads, triton.cdiv(tokens, block))](
        words,
        scales,
        offsets,
        out,
        tokens,
        scales.shape[1],
        BITS=bits,
        CHANNELS=channels,
        GROUPED=bool(group),
        BLOCK=block,
        num_warps=4,
    )
    return out


def attention(
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
    splits: int = 0,
) -> tuple[Tensor, Tensor]:
    """As `kernels.kv.attention`; `splits`, a power of two, is chosen by length if 0."""
    texts, asked, channels = queries.shape
    heads = key_words.shape[0]
    block = group or TOKENS
    splits = splits or min(32, triton.next_power_of_2(triton.cdiv(tokens, 8 * block)))
    device = queries.device
    parts = torch.empty((texts, asked, splits, channels), dtype=torch.float32, device=device)
    sums = torch.empty((texts, asked, splits), dtype=torch.float32, device=device)
    out = torch.empty_like(queries)
    whole = torch.empty((texts, asked), dtype=torch.float32, device=device)
    each = texts * asked // heads
    attention_kernel[(heads, splits)](
        queries,
        key_words,
        key_scales,
        key_offsets,
        value_words,
        value_scales,
        value_offsets,
        key_words if keep is None else keep,
        parts,
        sums,
        tokens,
        key_words.shape[1],
        value_words.shape[1],
        key_scales.shape[1],
        0 if keep is None else keep.shape[1],
        scale,
        KEY_BITS=key_bits,
        VALUE_BITS=value_bits,
        CHANNELS=channels,
        GROUPED=bool(group),
        KEEP=keep is not None,
        ASKED=each,
        ROWS=max(16, triton.next_power_of_2(each)),
        BLOCK=block,
        SPLITS=splits,
        num_warps=4,
    )
    join_kernel[(texts * asked,)](parts, sums, out, whole, CHANNELS=channels, SPLITS=splits)
    return out, whole
