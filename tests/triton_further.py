"""Triton's sparse, 8-bit and rotating kernels, interpreted; run as `triton_products` is."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch

from kernels import (
    bitpack,
    bitplane_mm,
    huffman,
    lossless,
    lossless_mm,
    scaled_mm,
    slots,
    sparse_mm,
    vq_mm,
)
from kernels.configs import Blocks
from kernels.gpu_products import PRODUCTS
from kernels.triton import bitplane_mm as bitplanes
from kernels.triton import hadamard
from kernels.triton import huffman as lanes
from kernels.triton import lossless_mm as exact
from kernels.triton import scaled_mm as scaled
from kernels.triton import sparse_mm as sparse
from kernels.triton import vq_mm as vectors
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


@pytest.mark.parametrize(
    ("columns", "rows", "dtype"),
    [(256, 3, torch.bfloat16), (200, 20, torch.bfloat16), (200, 2, torch.float16)],
)
def test_bits_kept_behind_codes_of_exponents(columns, rows, dtype):
    weight = (torch.randn(72, columns) * 2 ** (3 * torch.randn(72, columns))).bfloat16()
    weight[3], weight[4, :5] = 0, -0.0
    x, bias = torch.randn(rows, columns).to(dtype), torch.randn(72).to(dtype)
    held = lossless_mm.pack(weight)
    assert len(held.values) > 72
    assert torch.equal(
        lossless_mm.unpack(held, columns).view(torch.int16), weight.view(torch.int16)
    )
    wanted = x.double() @ weight.double().T + bias.double()
    close(exact.product(x, *held, bias, blocks=SPLIT), wanted, dtype)
    close(lossless_mm.product(x, *held, bias), wanted, dtype)


@pytest.mark.parametrize(
    ("count", "columns", "group", "dtype"),
    [(1, 256, 64, torch.bfloat16), (3, 200, 32, torch.float16), (2, 200, 200, torch.bfloat16)],
)
def test_planes_of_signs_with_scales_of_groups(count, columns, group, dtype):
    groups = -(-columns // group)
    positive = torch.rand(count, 72, columns) < 0.5
    worth = torch.randn(count + 1, groups, 72).to(dtype)
    spread = torch.arange(columns) // group
    held = worth[-1].double().T[:, spread]
    for one, scales in zip(positive, worth[:-1].double(), strict=True):
        held = held + torch.where(one, 1.0, -1.0).double() * scales.T[:, spread]
    x, bias = torch.randn(3, columns).to(dtype), torch.randn(72).to(dtype)
    tile = slots.tile_of(group, columns)
    words = torch.stack([slots.pack(one, 1, tile) for one in positive])
    wanted = x.double() @ held.T + bias.double()
    close(bitplanes.planes(x, words, worth, group, bias, blocks=SPLIT), wanted, dtype)
    close(bitplane_mm.planes(x, words, worth, group, bias), wanted, dtype)


@pytest.mark.parametrize(("rank", "columns"), [(16, 256), (5, 200)])
def test_signs_before_sizes_of_two_factors(rank, columns):
    positive = torch.rand(72, columns) < 0.5
    left, right = torch.randn(72, rank).bfloat16(), torch.randn(rank, columns).bfloat16()
    held = torch.where(positive, 1.0, -1.0).double() * (left.double() @ right.double())
    x, bias = torch.randn(3, columns).bfloat16(), torch.randn(72).bfloat16()
    words = slots.pack(positive, 1, 128)
    wanted = x.double() @ held.T + bias.double()
    close(bitplanes.sized(x, words, left, right, bias, blocks=SPLIT), wanted, x.dtype)
    close(bitplane_mm.sized(x, words, left, right, bias), wanted, x.dtype)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("bits", "dimension"), [(8, 4), (4, 2), (1, 8), (2, 3)])
def test_vectors_of_a_codebook_along_inputs_or_outputs(bits, dimension, transposed):
    outputs, inputs = 72, 120
    lines, length = (inputs, outputs) if transposed else (outputs, inputs)
    codebook = torch.randn(1 << bits, dimension).bfloat16()
    places = torch.randint(0, 1 << bits, (lines, length // dimension))
    held = codebook.double()[places].view(lines, length)
    x, bias = torch.randn(3, inputs).bfloat16(), torch.randn(outputs).bfloat16()
    wanted = x.double() @ (held if transposed else held.T) + bias.double()
    indices = bitpack.pack_plane(places, bits)
    arguments = x, indices, codebook, outputs, transposed, bias
    close(vectors.product(*arguments, blocks=SPLIT), wanted, x.dtype)
    close(vq_mm.product(*arguments), wanted, x.dtype)


@pytest.mark.parametrize("name", PRODUCTS)
def test_what_is_tuned_on_a_gpu_is_the_operation_with_its_blocks(name):
    case = PRODUCTS[name].make(2, 24, 128, "cpu")
    wanted = case.reference().double()
    close(case.call(case.held, SPLIT), wanted, torch.bfloat16)
    assert not torch.equal(case.call(torch.zeros_like(case.held), SPLIT).double(), wanted)
    assert case.beside > 0


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
