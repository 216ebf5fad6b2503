"""Small arguments for every operation, made on a processor: what a GPU must agree on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from kernels import (
    bfloat16,
    bitplane_mm,
    huffman,
    kv,
    lossless,
    lossless_mm,
    lut_mm,
    outlier_mm,
    scaled_mm,
    slots,
    sparse_mm,
    vq_mm,
    wna16_mm,
)

BOUND = 1.5e-2
"""Largest difference from the reference, relative to its norm: rounding to bfloat16."""
OUTPUTS, INPUTS, GROUP = 136, 256, 64

Case = tuple[str, Callable[..., Any], tuple[Any, ...]]


def cases() -> Iterator[Case]:
    """Name, operation and arguments; numbers are random, but the same each time."""
    torch.manual_seed(0)
    yield from _integer_groups()
    yield from _sparse()
    yield from _signs()
    yield from _eight_bits()
    yield from _states()
    yield "lossless_decode", lossless.decode, _huffman()


def few(rows: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """An activation of some rows."""
    return torch.randn(rows, INPUTS).to(dtype)


def _integer_groups() -> Iterator[Case]:
    scales, offsets = torch.rand(2, INPUTS // GROUP, OUTPUTS).bfloat16()
    bias, down, up = (
        torch.randn(*shape).bfloat16() for shape in ((OUTPUTS,), (8, INPUTS), (OUTPUTS, 8))
    )
    for bits in (2, 3, 4, 5, 6, 8):
        codes = torch.randint(0, 1 << bits, (OUTPUTS, INPUTS))
        words = slots.pack(codes, bits, GROUP)
        for rows in (1, 17, 80):
            held = few(rows), words, scales, offsets, bits, GROUP, bias, down, up
            yield f"wna16_mm, {bits} bits, {rows} rows", wna16_mm.product, held
        tables = torch.randn(OUTPUTS, 1 << bits).bfloat16()
        words = slots.pack(codes, bits, slots.WIDEST_TILE)
        yield f"lut_mm, {bits} bits", lut_mm.product, (few(3), words, tables, bits)
    mask = torch.rand(OUTPUTS, INPUTS) < 0.02
    places = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0)).to(torch.int32)
    apart = places, mask.nonzero()[:, 1].to(torch.int32), torch.randn(int(mask.sum())).bfloat16()
    words = slots.pack(torch.randint(0, 8, (OUTPUTS, INPUTS)), 3, GROUP)
    yield "outlier_mm", outlier_mm.product, (few(3), words, scales, offsets, 3, GROUP, *apart)


def _signs() -> Iterator[Case]:
    positive = torch.rand(3, OUTPUTS, INPUTS) < 0.5
    words = torch.stack([slots.pack(one, 1, GROUP) for one in positive])
    worth = torch.randn(4, INPUTS // GROUP, OUTPUTS).bfloat16()
    yield "bitplane_mm, 3 planes", bitplane_mm.planes, (few(3), words, worth, GROUP)
    factors = torch.randn(OUTPUTS, 16).bfloat16(), torch.randn(16, INPUTS).bfloat16()
    words = slots.pack(positive[0], 1, slots.WIDEST_TILE)
    yield "signs_mm", bitplane_mm.sized, (few(3), words, *factors)
    codebook = torch.randn(256, 4).bfloat16()
    indices = torch.randint(0, 256, (INPUTS, OUTPUTS // 4)).to(torch.uint8)
    yield "vq_mm", vq_mm.product, (few(3), indices, codebook, OUTPUTS, True)


def _sparse() -> Iterator[Case]:
    weight = torch.randn(OUTPUTS, INPUTS).bfloat16()
    held = sparse_mm.pack_bitmask(weight, torch.rand(OUTPUTS, INPUTS) < 0.5)
    yield "bitmask_mm", sparse_mm.bitmask, (few(3), *held)
    mask = torch.tensor([True, False, False, True]).repeat(OUTPUTS, INPUTS // 4)
    yield "lossless_mm", lossless_mm.product, (few(3), *lossless_mm.pack(weight))
    yield "sp24_mm", sparse_mm.fours, (few(3), *sparse_mm.pack_fours(weight, mask))


def _eight_bits() -> Iterator[Case]:
    tokens, rows = torch.rand(18), torch.rand(OUTPUTS).bfloat16()
    sides = [torch.randint(-128, 128, (size, INPUTS)) for size in (18, OUTPUTS)]
    whole = [side.to(torch.int8) for side in sides]
    yield "w8a8_mm", scaled_mm.int8, (*whole, tokens, rows)
    floats = [torch.randn(side.shape).to(torch.float8_e4m3fn) for side in sides]
    yield "fp8_mm", scaled_mm.float8, (*floats, tokens, rows)
    signs = torch.randint(0, 2, (INPUTS,)).bfloat16() * 2 - 1
    yield "fwht", scaled_mm.rotate, (few(5), signs)
    yield "hadamard_quant", scaled_mm.rotate_and_quantise, (few(5), signs, 8)


def _states() -> Iterator[Case]:
    states, queries = torch.randn(2, 128, 64).bfloat16(), torch.randn(1, 8, 64).bfloat16()
    for bits in (2, 4, 8):
        for group in (0, 32):
            keys, values = kv.quantise(states, bits, group), kv.quantise(states, bits, 0)
            name = f"{bits} bits, groups of {group}"
            yield f"kv_quant, {name}", kv.quantise, (states, bits, group)
            held = (*keys, bits, group, states)
            yield f"kv_dequant, {name}", kv.dequantise, held
            asked = (queries, *keys, *values, 100, bits, bits, group, 0.125)
            yield f"kv_decode_attn, {name}", kv.attention, asked


def _huffman() -> tuple[Any, ...]:
    exponents, rest = bfloat16.taken_apart(torch.randn(INPUTS, 64).bfloat16())
    exponents = exponents.flatten()
    lengths = huffman.code_lengths(torch.bincount(exponents.to(torch.int64), minlength=256))
    return *huffman.encode(exponents, lengths), lengths, rest, 0


def difference(found: Any, wanted: Any) -> float:
    """The largest difference of any result, relative to the norm of the wanted one."""
    founds = found if isinstance(found, tuple) else (found,)
    wanteds = wanted if isinstance(wanted, tuple) else (wanted,)
    errors = []
    for one, other in zip(founds, wanteds, strict=True):
        apart = (one.cpu().double() - other.double()).norm()
        errors.append(float(apart / other.double().norm().clamp(min=1e-30)))
    # a NaN is larger than any bound
    return max(float("inf") if math.isnan(error) else error for error in errors)
