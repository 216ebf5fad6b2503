"""Triton's products in its interpreter; `test_triton.py` runs this in a process of its own."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch

from kernels import lut_mm, outlier_mm, slots, wna16_mm
from kernels.configs import Blocks
from kernels.triton import wna16_mm as products
from tests.triton_checks import checked, close, poison  # noqa: F401 - fixtures for every test

SPLIT = Blocks(16, 64, 2)


def weight(bits, outputs, inputs, group, dtype, offset=True):
    generator = torch.Generator().manual_seed(bits)
    groups = -(-inputs // group)
    codes = torch.randint(0, 1 << bits, (outputs, inputs), generator=generator)
    scales = torch.rand(outputs, groups, generator=generator).add(0.5).to(dtype)
    offsets = torch.randn(outputs, groups, generator=generator).to(dtype) if offset else None
    return codes, scales, offsets


def by_hand(x, codes, scales, offsets, bits, group):
    """The definition, number by number of the formula, in float64."""
    spread = torch.arange(codes.shape[1]) // group
    held = (codes.double() - 2 ** (bits - 1)) * scales.double()[:, spread]
    held += 0 if offsets is None else offsets.double()[:, spread]
    return x.double() @ held.T


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [*((bits, torch.bfloat16) for bits in range(1, 9)), (4, torch.float16), (8, torch.float16)],
)
def test_integer_groups_times_few_rows(bits, dtype):
    codes, scales, offsets = weight(bits, 72, 256, 64, dtype, offset=bits != 4)
    x = torch.randn(3, 256).to(dtype)
    words = slots.pack(codes, bits, 64)
    by_group = None if offsets is None else offsets.T.contiguous()
    arguments = x, words, scales.T.contiguous(), by_group, bits, 64
    wanted = by_hand(x, codes, scales, offsets, bits, 64)
    close(products.wna16_mm(*arguments, blocks=SPLIT), wanted, dtype)
    close(wna16_mm.product(*arguments), wanted, dtype)


@pytest.mark.parametrize(("inputs", "group"), [(200, 32), (200, 200), (200, 1 << 20), (256, 128)])
def test_rows_that_end_within_a_tile_and_groups_of_all_sizes(inputs, group):
    size = min(group, inputs)
    codes, scales, offsets = weight(3, 40, inputs, size, torch.bfloat16)
    x = torch.randn(2, inputs).to(torch.bfloat16)
    words = slots.pack(codes, 3, slots.tile_of(group, inputs))
    by_group = scales.T.contiguous(), offsets.T.contiguous()
    found = products.wna16_mm(x, words, *by_group, 3, group, blocks=SPLIT)
    close(found, by_hand(x, codes, scales, offsets, 3, size), torch.bfloat16)


@pytest.mark.parametrize("bits", [4, 5])
def test_many_rows_scale_the_weight_first_and_add_bias_and_low_rank(bits):
    codes, scales, offsets = weight(bits, 72, 128, 64, torch.bfloat16)
    x = torch.randn(70, 128).to(torch.bfloat16)
    bias, down, up = (torch.randn(*s).bfloat16() for s in ((72,), (5, 128), (72, 5)))
    words = slots.pack(codes, bits, 64)
    arguments = x, words, scales.T.contiguous(), offsets.T.contiguous(), bits, 64, bias, down, up
    wanted = by_hand(x, codes, scales, offsets, bits, 64) + bias.double()
    wanted += x.double() @ down.double().T @ up.double().T
    close(products.wna16_mm(*arguments, blocks=Blocks(64, 64, 1)), wanted, torch.bfloat16)
    close(wna16_mm.product(*arguments), wanted, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outliers_are_added_in_the_second_pass(dtype):
    codes, scales, offsets = weight(3, 72, 128, 64, dtype)
    x = torch.randn(2, 128).to(dtype)
    mask = torch.rand(72, 128) < 0.03
    mask[5] = False
    places = torch.cat([torch.zeros(1), mask.sum(1).cumsum(0)]).to(torch.int32)
    columns = mask.nonzero()[:, 1].to(torch.int32)
    values = (10 * torch.randn(columns.numel())).to(dtype)
    arguments = (x, slots.pack(codes, 3, 64), scales.T.contiguous(), offsets.T.contiguous(), 3, 64)
    dense = torch.zeros(72, 128, dtype=torch.float64)
    dense[mask] = values.double()
    wanted = by_hand(x, codes, scales, offsets, 3, 64) + x.double() @ dense.T
    close(products.outlier_mm(*arguments, places, columns, values, blocks=SPLIT), wanted, dtype)
    close(outlier_mm.product(*arguments, places, columns, values), wanted, dtype)


@pytest.mark.parametrize("bits", [3, 4])
def test_one_table_scaled_by_group_and_outliers_beside_it(bits):
    codes = torch.randint(0, 1 << bits, (72, 200))
    table, x = torch.randn(1, 1 << bits).bfloat16(), torch.randn(3, 200).bfloat16()
    scales = torch.rand(72, 7).add(0.5).bfloat16()
    mask = torch.rand(72, 200) < 0.03
    places = torch.cat([torch.zeros(1), mask.sum(1).cumsum(0)]).to(torch.int32)
    columns = mask.nonzero()[:, 1].to(torch.uint16)
    values = (10 * torch.randn(columns.numel())).bfloat16()
    held = table[0][codes].double() * scales.double()[:, torch.arange(200) // 32]
    held[mask] += values.double()
    words = slots.pack(codes, bits, 32)
    arguments = (x, words, table, bits, None, scales.T.contiguous(), 32, places, columns, values)
    wanted = x.double() @ held.T
    close(products.lut_mm(*arguments, blocks=SPLIT), wanted, torch.bfloat16)
    close(lut_mm.product(*arguments), wanted, torch.bfloat16)


@pytest.mark.parametrize("bits", [3, 4])
def test_tables_of_values(bits):
    codes = torch.randint(0, 1 << bits, (72, 200))
    tables = torch.randn(72, 1 << bits).bfloat16()
    x, bias = torch.randn(3, 200).bfloat16(), torch.randn(72).bfloat16()
    words = slots.pack(codes, bits, 128)
    held = torch.stack([tables[row][codes[row]] for row in range(72)]).double()
    wanted = x.double() @ held.T + bias.double()
    close(products.lut_mm(x, words, tables, bits, bias, blocks=SPLIT), wanted, torch.bfloat16)
    close(lut_mm.product(x, words, tables, bits, bias), wanted, torch.bfloat16)
