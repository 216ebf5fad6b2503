"""What is written in float32 before it is multiplied: exact numbers, and one order of every sum."""

import pytest
import torch

from backend.formats.bitmask import BitmaskSparse
from backend.formats.dense import Dense
from backend.formats.group_sparse import GroupSparse
from backend.formats.rows import Rows
from backend.formats.scalar import ScalarCodebook
from backend.formats.sparse24 import Sparse24
from backend.formats.table import TableCodes
from backend.formats.transposed import Transposed
from tests.test_packed import integers, near, random

pytestmark = pytest.mark.usefixtures("loops")

SHAPES = [(33, 172), (64, 128), (5, 9), (19, 330)]


def tables(bits, rows, columns, group_size=None):
    """Codes of every value into a table a row, or into one with scales of groups."""
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 1 << bits, (rows, columns), generator=generator)
    codes.view(-1)[: 1 << bits] = torch.arange(1 << bits)[: codes.numel()]
    if group_size is None:
        return ScalarCodebook.pack(codes, random(rows, 1 << bits, seed=1))
    scales = random(rows, -(-columns // group_size), seed=2)
    return TableCodes.pack(codes, random(1 << bits, seed=3), scales, group_size)


def in_one_order(held, counts=(1, 2, 3, 4, 5, 17)):
    """Products with any number of activations: right, and each as it is alone."""
    x = random(max(counts), held.columns, seed=4)
    alone = torch.cat([held.matrix().multiply(one[None]) for one in x])
    near(alone, x.double() @ held.dense().double().T)
    for count in counts:
        assert torch.equal(held.matrix().multiply(x[:count]), alone[:count])


@pytest.mark.parametrize("bits", [5, 6, 7, 8])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_large_tables_are_looked_up_exactly_and_multiplied_in_one_order(bits, rows, columns):
    for group_size in (None, columns, 64, 40, 16, 8, 5):
        held = tables(bits, rows, columns, group_size)
        assert torch.equal(held.matrix().dense(), held.dense())
        in_one_order(held)


@pytest.mark.parametrize("bits", [5, 8])
def test_numbers_of_a_table_keep_all_32_bits(bits):
    held = tables(bits, 12, 200, 40)
    wide = random(1 << bits, seed=5)
    held.entries = lambda: wide
    assert not torch.equal(wide, wide.to(torch.bfloat16).float())
    assert torch.equal(held.matrix().dense(), held.dense())
    in_one_order(held)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("columns", [8, 24, 128, 344])
def test_two_of_four_hold_codes(bits, columns):
    kept = random(35, columns // 4, 4, seed=1).argsort(-1) < 2
    held = Sparse24.pack(torch.ones(35, columns), kept.view(35, columns))
    for kind, group_size in (("float", 8), ("zero-point", 16), ("none", 24), ("float", 5)):
        held.values = integers(35, columns // 2, bits, group_size, kind)
        near(held.matrix().dense(), held.dense(), 1e-6)
        in_one_order(held)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("columns", [7, 24, 132, 344])
def test_what_a_mask_keeps_is_held_in_codes(bits, columns):
    mask = random(35, columns, seed=2) > 0.4
    mask[3] = mask[17] = False
    mask[5] = True
    held = BitmaskSparse.pack(torch.ones(35, columns), mask)
    for kind, group_size in (("float", 8), ("zero-point", 128), ("none", 24), ("float", 5)):
        held.values = integers(1, int(mask.sum()), bits, group_size, kind)
        near(held.matrix().dense(), held.dense(), 1e-6)
        in_one_order(held)
        turned = Transposed.of(held)
        near(turned.matrix().dense(), turned.dense(), 1e-6)


@pytest.mark.parametrize("fine", [1, 20, 40])
def test_rows_of_two_kinds_are_written_apart_and_put_in_their_places(fine):
    chosen = torch.randperm(41, generator=torch.Generator().manual_seed(fine)) < fine
    apart = integers(fine, 76, 5, 5, "float"), integers(41 - fine, 76, 3, 8, "none")
    held = Rows.pack(chosen, *apart)
    near(held.matrix().dense(), held.dense(), 1e-6)
    in_one_order(held)
    turned = Transposed.of(held)
    near(turned.matrix().dense(), turned.dense(), 1e-6)


@pytest.mark.parametrize("bits", [5, 8])
@pytest.mark.parametrize("group_size", [8, 20, 80])
def test_a_part_of_a_row_begins_anywhere(bits, group_size):
    scales = tables(bits, 1, 80, group_size)
    values = integers(1, 640, 4, 8, "none")
    values.scales = scales
    held = GroupSparse.pack(torch.ones(10, 8, dtype=torch.bool), values, 64)
    near(held.matrix().dense(), held.dense(), 1e-6)
    turned = Transposed.of(tables(bits, 40, 204, 12))
    assert torch.equal(turned.matrix().dense(), turned.dense())
    empty = Dense.pack(torch.zeros(0, 80))
    assert torch.equal(
        Rows.pack(torch.ones(1, dtype=torch.bool), scales, empty).matrix().dense(), scales.dense()
    )
