"""Triton's sparse, 8-bit and rotating kernels, interpreted; run as `triton_products` is."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch

from kernels import huffman, lossless, scaled_mm, sparse_mm
from kernels.configs import Blocks
from kernels.triton import hadamard
from kernels.triton import huffman as lanes
from kernels.triton import scaled_mm as scaled
from kernels.triton import sparse_mm as sparse
from tests.triton_checks import checked, close, poison  # noqa: F401 - fixtures for every test

SPLIT = Blocks(16, 64, 2)


@pytest.mark.parametrize(("columns", "dtype"), [(256, torch.bfloat16), (200, torch.float16)])
def test_any_pattern_behind_bits(dtype, columns):
    weight, mask = torch.randn(72, columns).to(dtype), torch.rand(72, columns) < 0.4
    mask[3], mask[4] = False, True
    x, bias = torch.randn(3, columns).to(dtype), torch.randn(72).to(dtype)
    held = sparse_mm.pack_bitmask(weight, mask)
    wanted = x.double() @ (weight.double() * mask).T + bias.double()
    close(sparse.bitmask(x, *held, bias, blocks=SPLIT), wanted, dtype)
    close(sparse_mm.bitmask(x, *held, bias), wanted, dtype)


@pytest.mark.parametrize(("columns", "dtype"), [(512, torch.bfloat16), (392, torch.float16)])
def test_two_of_every_four(dtype, columns):
    weight = torch.randn(72, columns).to(dtype)
    places = torch.rand(72, columns // 4, 4).argsort(2)[..., :2]
    mask = torch.zeros(72, columns // 4, 4, dtype=torch.bool).scatter_(2, places, True).flatten(1)
    x = torch.randn(3, columns).to(dtype)
    held = sparse_mm.pack_fours(weight, mask)
    wanted = x.double() @ (weight.double() * mask).T
    close(sparse.fours(x, *held, blocks=SPLIT), wanted, dtype)
    close(sparse_mm.fours(x, *held), wanted, dtype)


def test_a_mask_that_keeps_three_of_four_is_refused():
    mask = torch.tensor([[True, True, True, False]])
    with pytest.raises(ValueError, match="exactly two"):
        sparse_mm.pack_fours(torch.ones(1, 4), mask)


@pytest.mark.parametrize("columns", [256, 200])
def test_int8_products_are_exact_before_they_are_scaled(columns):
    x = torch.randint(-128, 128, (18, columns), dtype=torch.int8)
    weight = torch.randint(-128, 128, (72, columns), dtype=torch.int8)
    tokens, rows, bias = torch.rand(18), torch.rand(72).bfloat16(), torch.randn(72).bfloat16()
    wanted = x.double() @ weight.double().T * tokens.double()[:, None] * rows.double()
    wanted += bias.double()
    close(scaled.product(x, weight, tokens, rows, bias, blocks=SPLIT), wanted, torch.bfloat16)
    close(scaled_mm.int8(x, weight, tokens, rows, bias), wanted, torch.bfloat16)


def test_float8_products():
    kind = torch.float8_e4m3fn
    x, weight = torch.randn(3, 256).to(kind), torch.randn(72, 256).to(kind)
    tokens, rows = torch.rand(3), torch.rand(72).bfloat16()
    wanted = x.double() @ weight.double().T * tokens.double()[:, None] * rows.double()
    close(scaled.product(x, weight, tokens, rows, blocks=SPLIT), wanted, torch.bfloat16)
    close(scaled_mm.float8(x, weight, tokens, rows), wanted, torch.bfloat16)


def hadamard_matrix(size):
    """Entry [i, j] is -1 to the number of bits that i and j share, over the root of the size."""
    signs = [[(-1) ** (i & j).bit_count() for j in range(size)] for i in range(size)]
    return torch.tensor(signs, dtype=torch.float64) / size**0.5


@pytest.mark.parametrize("size", [64, 256])
def test_rows_are_rotated(size):
    x, signs = torch.randn(70, size).bfloat16(), torch.randint(0, 2, (size,)) * 2.0 - 1
    wanted = x.double() * signs @ hadamard_matrix(size)
    close(hadamard.rotate(x, signs), wanted, torch.bfloat16)
    close(scaled_mm.rotate(x, signs), wanted, torch.bfloat16)


@pytest.mark.parametrize("bits", [4, 8])
def test_rotated_rows_are_quantised(bits):
    x, signs = torch.randn(5, 128), torch.ones(128)
    wanted = x.double() @ hadamard_matrix(128)
    for module in (hadamard, scaled_mm):
        codes, scales = module.rotate_and_quantise(x, signs, bits)
        assert codes.abs().amax() == 2 ** (bits - 1) - 1
        error = (codes.double() * scales.double()[:, None] - wanted).abs()
        assert (error <= scales.double()[:, None] * 0.5001).all()


@pytest.mark.parametrize("columns", [1, 96, 16384])
def test_rows_that_cannot_be_rotated_are_refused(columns):
    for module in (hadamard, scaled_mm):
        with pytest.raises(ValueError, match="power of two"):
            module.rotate(torch.zeros(1, columns), torch.zeros(columns))


@pytest.mark.parametrize("shape", [(40, 128), (7, 100)])
def test_numbers_come_back_from_huffman_codes_to_the_bit(shape):
    matrix = torch.randn(shape).mul(0.02).bfloat16()
    matrix[0, :5] = torch.tensor([0.0, -0.0, float("inf"), 1e-39, -3e38])
    bits = matrix.view(torch.int16).to(torch.int32) & 0xFFFF
    exponents, rest = (bits >> 7) & 0xFF, ((bits >> 8) & 0x80) | (bits & 0x7F)
    lengths = huffman.code_lengths(torch.bincount(exponents.flatten(), minlength=256))
    symbols = exponents.flatten().to(torch.uint8)
    padded = torch.nn.functional.pad(symbols, (0, -symbols.numel() % 64), value=int(symbols[-1]))
    held = *huffman.encode(padded, lengths), lengths, rest.to(torch.uint8), 0
    for module in (lanes, lossless):
        assert torch.equal(module.decode(*held).view(torch.int16), matrix.view(torch.int16))
