"""One launch of every Triton product at the shapes of a real layer, for `triton_targets`."""

import torch

from kernels.configs import Blocks
from kernels.triton import (
    bitplane_mm,
    hadamard,
    huffman,
    kv,
    lossless_mm,
    scaled_mm,
    sparse_mm,
    vq_mm,
    wna16_mm,
)

N = K = 4096
FEW, MANY = Blocks(16, 64, 4), Blocks(64, 64, 1)


def numbers(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype)


def words(bits):
    return numbers(N, K * bits // 16, dtype=torch.int16)


def groups():
    return numbers(K // 128, N), numbers(K // 128, N)


def wna16(bits, rows=1, blocks=FEW, dtype=torch.bfloat16):
    scales, offsets = groups()
    x = numbers(rows, K, dtype=dtype)
    return lambda: wna16_mm.wna16_mm(x, words(bits), scales, offsets, bits, 128, blocks=blocks)


def outliers():
    count = N * 40
    apart = numbers(N + 1, dtype=torch.int32), numbers(count, dtype=torch.int32), numbers(count)
    wna16_mm.outlier_mm(numbers(1, K), words(3), *groups(), 3, 128, *apart, blocks=FEW)


def low_rank():
    parts = numbers(N), numbers(32, K), numbers(N, 32)
    wna16_mm.wna16_mm(numbers(1, K), words(4), *groups(), 4, 128, *parts, blocks=FEW)


def states(bits, group, tokens=4096):
    shared = (8, tokens // group, 128) if group else (8, tokens, 1)
    held = numbers(8, tokens, bits * 8, dtype=torch.int16)
    return held, numbers(*shared), numbers(*shared)


def attention(key_bits, value_bits, group, **settings):
    keys, values = states(key_bits, group), states(value_bits, 0)
    queries = numbers(1, 32, 128)
    return lambda: kv.attention(
        queries, *keys, *values, 4000, key_bits, value_bits, group, 0.1, **settings
    )


def eight(kind):
    sides = numbers(64, K, dtype=kind), numbers(N, K, dtype=kind)
    return scaled_mm.product(*sides, numbers(64, dtype=torch.float32), numbers(N), blocks=MANY)


LAUNCHES = {
    **{f"wna16_mm {bits} bits": wna16(bits) for bits in (2, 3, 4, 5, 6, 8)},
    "wna16_mm 4 bits float16": wna16(4, dtype=torch.float16),
    "wna16_mm 4 bits 64 rows": wna16(4, 64, Blocks(64, 64, 1)),
    "wna16_mm 4 bits 512 rows": wna16(4, 512, MANY),
    "wna16_mm 4 bits low-rank": low_rank,
    "outlier_mm 3 bits": outliers,
    "lut_mm 4 bits": lambda: wna16_mm.lut_mm(
        numbers(1, K), words(4), numbers(N, 16), 4, blocks=FEW
    ),
    "lut_mm 4 bits, one table": lambda: wna16_mm.lut_mm(
        numbers(1, K),
        words(4),
        numbers(1, 16),
        4,
        scales=numbers(K // 128, N),
        group_size=128,
        blocks=FEW,
    ),
    "kv_quant 4 bits a channel": lambda: kv.quantise(numbers(8, 4096, 128), 4, 64),
    "kv_quant 4 bits a token": lambda: kv.quantise(numbers(8, 4096, 128), 4, 0),
    "kv_dequant 2 bits": lambda: kv.dequantise(*states(2, 64), 2, 64, numbers(1)),
    "kv_decode_attn 4 bits": attention(4, 4, 64),
    "kv_decode_attn 2 bits": attention(2, 2, 32),
    "kv_decode_attn 8 bits a token": attention(8, 8, 0),
    "kv_decode_attn 4 bits, kept tokens": attention(
        4, 4, 64, keep=numbers(8, 4096, dtype=torch.uint8)
    ),
    "bitmask_mm": lambda: sparse_mm.bitmask(
        numbers(1, K),
        numbers(N, K // 16, dtype=torch.int16),
        numbers(N, K // 128, dtype=torch.int32),
        numbers(N * K // 2),
        blocks=FEW,
    ),
    "sp24_mm": lambda: sparse_mm.fours(
        numbers(1, K), numbers(2, N, K // 4), numbers(N, K // 16, dtype=torch.int16), blocks=FEW
    ),
    "lossless_mm": lambda: lossless_mm.product(
        numbers(1, K),
        numbers(N, K, dtype=torch.uint8),
        numbers(N, K // 2, dtype=torch.uint8),
        100,
        numbers(N + 1, dtype=torch.int32),
        numbers(N, dtype=torch.int32),
        numbers(N),
        blocks=FEW,
    ),
    "bitplane_mm 3 planes": lambda: bitplane_mm.planes(
        numbers(1, K),
        numbers(3, N, K // 16, dtype=torch.int16),
        numbers(4, K // 128, N),
        128,
        blocks=FEW,
    ),
    "signs_mm": lambda: bitplane_mm.sized(
        numbers(1, K),
        numbers(N, K // 16, dtype=torch.int16),
        numbers(N, 16),
        numbers(16, K),
        blocks=FEW,
    ),
    "vq_mm 8 bits along outputs": lambda: vq_mm.product(
        numbers(1, K),
        numbers(K, N // 4, dtype=torch.uint8),
        numbers(256, 4),
        N,
        transposed=True,
        blocks=FEW,
    ),
    "w8a8_mm": lambda: eight(torch.int8),
    "fp8_mm": lambda: eight(torch.float8_e4m3fn),
    "fwht": lambda: hadamard.rotate(numbers(64, 1024), numbers(1024)),
    "hadamard_quant": lambda: hadamard.rotate_and_quantise(numbers(64, 1024), numbers(1024), 4),
    "lossless_decode": lambda: huffman.decode(
        numbers(N * K // 2, dtype=torch.uint8),
        numbers(N * K // 4096, dtype=torch.int64),
        numbers(N * K // 64, dtype=torch.int16),
        torch.full((32,), 5, dtype=torch.uint8),
        numbers(N, K, dtype=torch.uint8),
        100,
    ),
}

UNSUPPORTED = {"sm_80": ("fp8_mm",)}
"""Launches that a target has no instructions for."""
