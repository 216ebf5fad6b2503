"""Formats as a GPU multiplies them: the same matrix, bytes by hand, the operation called."""

import copy

import pytest
import torch

from backend.formats import (
    BinaryCodes,
    BitmaskSparse,
    Columns,
    Dense,
    EntropyCoded,
    FloatCodes,
    GroupSparse,
    IntegerGroups,
    LowRank,
    Outliers,
    Rows,
    ScalarCodebook,
    SharedRows,
    SignBlock,
    Sparse24,
    Sum,
    TableCodes,
    Transposed,
    VectorCodebook,
    WindowCoded,
)
from backend.formats.slotted import Slotted
from backend.models.place import put
from kernels import lossless_mm
from tests.pretended_gpu import GPU, pretended

ROWS = 24


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def codes_of(bits, rows=ROWS, columns=256):
    return torch.randint(
        0, 1 << bits, (rows, columns), generator=torch.Generator().manual_seed(bits)
    )


def integers(bits=4, columns=256, group=64, offset="float", rows=ROWS):
    groups = -(-columns // group)
    codes = codes_of(bits, rows, columns)
    scales = draw(rows, groups).abs() + 0.5
    if offset == "zero-point":
        points = torch.full((rows, groups), (1 << bits) // 3)
        beside = {"zero_points": points}
    else:
        beside = {"offsets": draw(rows, groups, seed=1) if offset == "float" else None}
    return IntegerGroups.pack(codes, scales, bits=bits, group_size=group, **beside)


def table(bits, columns=256, group=64):
    scales = draw(ROWS, -(-columns // group)).abs() + 0.5
    return TableCodes.pack(codes_of(bits, ROWS, columns), draw(1 << bits), scales, group)


def floating(group=64):
    scales = draw(ROWS, 256 // group).abs() + 0.5
    return FloatCodes.pack(codes_of(4), scales, exponent_bits=2, mantissa_bits=1, group_size=group)


def apart(rows=ROWS, columns=256):
    mask = draw(rows, columns, seed=3) > 2
    mask[5] = False
    return Outliers.pack(10 * draw(rows, columns, seed=4), mask)


def mixed(make, *widths):
    mask = torch.arange(ROWS) % 3 == 0
    fine, coarse = (
        make(width, int(part.sum())) for width, part in zip(widths, (mask, ~mask), strict=True)
    )
    return Rows.pack(mask, fine, coarse)


def scalar(bits, rows=ROWS, columns=256):
    return ScalarCodebook.pack(codes_of(bits, rows, columns), draw(rows, 1 << bits))


def two_level():
    scales = IntegerGroups.pack(
        codes_of(6, ROWS, 4) + 1, torch.full((ROWS, 1), 0.05), bits=7, group_size=4
    )
    return IntegerGroups.pack(codes_of(3), scales, bits=3, group_size=64)


def fours():
    keep = torch.arange(256) % 4 < 2
    return Sparse24.pack(draw(ROWS, 256), keep.expand(ROWS, -1).roll(1, 1))


def mask_of(columns):
    return BitmaskSparse.pack(draw(ROWS, columns), draw(ROWS, columns, seed=2) > 0)


def coded_mask():
    held = BitmaskSparse.pack(
        draw(ROWS, 256), (torch.arange(ROWS * 256) % ROWS == 0).view(ROWS, 256)
    )
    held.values = integers(4, rows=1)
    return held


def vectors(lines, length, bits, dimension=4, seed=0):
    places = codes_of(bits, lines, length // dimension)
    return VectorCodebook.pack(places, draw(1 << bits, dimension, seed=seed))


def binary(planes, columns, group):
    groups = -(-columns // group)
    positive = draw(planes, ROWS, columns) > 0
    return BinaryCodes.pack(positive, draw(planes, ROWS, groups), draw(ROWS, groups), group)


def signs(columns, rank=5, seed=0):
    positive = draw(ROWS, columns, seed=seed) > 0
    return SignBlock.pack(positive, draw(ROWS, rank, seed=1), draw(rank, columns, seed=seed + 2))


CASES = {
    **{
        f"integers of {bits} bits": (lambda b=bits: integers(b), "wna16_mm") for bits in range(1, 9)
    },
    "no offset": (lambda: integers(offset="none"), "wna16_mm"),
    "zero points": (lambda: integers(3, offset="zero-point"), "wna16_mm"),
    "one group a row": (lambda: integers(5, 200, 200), "wna16_mm"),
    "a short last group": (lambda: integers(3, 200, 32), "wna16_mm"),
    "scales in integers": (two_level, "wna16_mm"),
    "tables of rows": (lambda: scalar(3), "lut_mm"),
    "tables of rows that end in a tile": (lambda: scalar(4, ROWS, 172), "lut_mm"),
    "one table": (lambda: table(4), "lut_mm"),
    "one table, one group": (lambda: table(3, 200, 200), "lut_mm"),
    "floating codes": (floating, "lut_mm"),
    "a mask": (lambda: mask_of(256), "bitmask_mm"),
    "a mask that ends in a tile": (lambda: mask_of(172), "bitmask_mm"),
    "two of four": (fours, "sp24_mm"),
    "outliers": (lambda: Sum.of(base=integers(3), outliers=apart()), "outlier_mm"),
    "outliers of tables": (lambda: Sum.of(base=scalar(3), outliers=apart()), "lut_mm"),
    "outliers of rows": (
        lambda: Sum.of(
            base=mixed(lambda bits, rows: integers(bits, rows=rows), 4, 3), outliers=apart()
        ),
        "outlier_mm",
    ),
    "rows of tables": (lambda: mixed(scalar, 4, 3), "lut_mm"),
    "mended": (
        lambda: Sum.of(base=integers(3), more=LowRank.pack(draw(ROWS, 4), draw(4, 256))),
        "wna16_mm",
    ),
    "vectors": (lambda: vectors(ROWS, 240, 4), "vq_mm"),
    "vectors along outputs": (lambda: Transposed.of(vectors(64, ROWS, 8)), "vq_mm"),
    "sums of vectors along outputs": (
        lambda: Transposed.of(Sum.of(a=vectors(64, ROWS, 8), b=vectors(64, ROWS, 4, seed=3))),
        "vq_mm",
    ),
    "columns of two codebooks": (
        lambda: Transposed.of(
            mixed(lambda bits, rows: vectors(rows, 24, bits, seed=bits), 8, 4),
        ),
        "vq_mm",
    ),
    "planes of signs": (lambda: binary(3, 256, 64), "bitplane_mm"),
    "planes of signs that end in a tile": (lambda: binary(2, 200, 200), "bitplane_mm"),
    "signs of factors": (lambda: signs(200), "signs_mm"),
    "signs of factors, added": (
        lambda: Sum.of(one=signs(256), other=signs(256, seed=5)),
        "signs_mm",
    ),
    "factors": (lambda: LowRank(ROWS, 256, integers(4, 32, 32), integers(4, rows=32)), "wna16_mm"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_operations_layout_holds_the_same_matrix_and_gives_its_products(name, monkeypatch):
    make, operation = CASES[name]
    held = make()
    wanted, rows = held.dense(), held.rows
    x, bias = draw(3, 2, held.columns, seed=7).bfloat16(), draw(rows, seed=8).bfloat16()
    exact = x.double() @ wanted.double().T
    with pretended(monkeypatch) as called:
        there = held.to(GPU).packed()
        assert there.speed == "measured"
        assert torch.equal(there.dense().cpu(), wanted)
        found = there.multiply(x.to(GPU))
        added = there.affine(x.to(GPU), bias.to(GPU))
        assert called[operation] >= 2
        assert called.keys() == {operation}
        assert found.dtype is torch.bfloat16
        assert found.device == added.device == GPU
        error = (found.cpu() - exact).norm() / exact.norm()
        assert error < (1e-2 if "factors" in name else 4e-3)  # rounding to bfloat16
        more = exact + bias.double()
        assert (added.cpu() - more).norm() / more.norm() < (1e-2 if "factors" in name else 5e-3)
        wide = there.multiply(x.float().to(GPU)).cpu()  # no operation takes 32 bits
        assert (wide - exact).norm() / exact.norm() < 1e-5


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        # words of 24 rows, then scales and offsets of 4 groups in 16 bits
        (integers(3), 24 * 256 * 3 // 8 + 2 * 24 * 4 * 2),
        # 200 columns fill tiles of 32 up to 224
        (integers(3, 200, 32, "none"), 24 * 224 * 3 // 8 + 24 * 7 * 2),
        # zero points stay as they are held: 4 groups in planes of 2 and 1 bits, a byte each
        (integers(3, offset="zero-point"), 24 * 256 * 3 // 8 + 24 * 4 * 2 + 24 * 2),
        (scalar(4, ROWS, 172), 24 * 256 * 4 // 8 + 24 * 16 * 2),
        # 200 columns in tiles of 128; two scales and an offset a row
        (binary(2, 200, 200), 2 * 24 * 256 // 8 + 3 * 24 * 2),
        (signs(200), 24 * 256 // 8 + 5 * (24 + 200) * 2),
        (table(4), 24 * 256 * 4 // 8 + 24 * 4 * 2 + 16 * 2),
    ],
)
def test_bytes_are_those_counted_before_but_for_what_fills_the_last_tile(held, expected):
    assert held.slotted().nbytes == expected
    assert sum(held.slotted().parts().values()) == expected


def test_outliers_and_masks_count_every_part():
    count = apart().values.numel()
    base = 24 * 256 * 3 // 8 + 2 * 24 * 4 * 2
    joined = Sum.of(base=integers(3), outliers=apart()).slotted()
    assert joined.nbytes == base + count * 4 + 25 * 4  # a value, a column; where rows begin
    held = mask_of(172)
    assert held.slotted().nbytes == 24 * 256 // 8 + held.values.columns * 2 + 24 * 2 * 4
    # a code of 4 bits to a four, and 64 of them fill half a tile
    assert fours().slotted().nbytes == 24 * 128 * 2 + 24 * 128 * 4 // 8


@pytest.mark.parametrize(
    "held",
    [
        integers(3, 256, 48),
        integers(4, 256, 8),
        BinaryCodes.pack(draw(2, ROWS, 64) > 0, draw(2, ROWS, 8), draw(ROWS, 8), 8),
        Transposed.of(integers(4)),
        coded_mask(),
        EntropyCoded.pack(draw(ROWS, 64).bfloat16()),
        GroupSparse.pack(
            (torch.arange(4 * ROWS) % 2 == 0).view(ROWS, 4), integers(4, 3072, rows=1), 256
        ),
        Columns.pack(
            torch.arange(256) % 4 == 0, integers(4, 64), binary(1, 192, 192), draw(192, seed=6)
        ),
    ],
    ids=[
        "groups of 48",
        "groups of 8",
        "signs in groups of 8",
        "transposed",
        "coded values",
        "entropy",
        "groups left out",
        "columns of two kinds",
    ],
)
def test_what_no_operation_takes_stays_as_it_is_and_says_so(held, monkeypatch):
    held = copy.deepcopy(held)
    x, wanted = draw(2, held.columns, seed=7), held.dense()
    with pretended(monkeypatch) as called:
        there = held.to(GPU)
        assert there.packed() is there
        assert not isinstance(there, Slotted)
        assert there.speed == "emulated"
        found = there.multiply(x.to(GPU)).cpu()
        assert torch.allclose(found, x @ wanted.T, atol=1e-3)
        assert not called.keys() - {"lossless_decode"}


def test_numbers_in_huffman_codes_come_from_the_operation(monkeypatch):
    values = draw(ROWS, 96).bfloat16()
    held = EntropyCoded.pack(values)
    with pretended(monkeypatch) as called:
        assert torch.equal(held.to(GPU).exact().cpu(), values)
        assert called == {"lossless_decode": 1}


def test_exponents_of_four_bits_are_multiplied_by_the_operation(monkeypatch):
    values = draw(ROWS, 200)
    values[::5, 3:5] *= 1e-9
    values[1::5, 7] *= 1e9
    values = values.bfloat16()
    held, x, rows = WindowCoded.pack(values), draw(2, 200, seed=7).bfloat16(), torch.arange(5) * 3
    with pretended(monkeypatch) as called:
        there = held.to(GPU).packed()
        assert isinstance(there, Slotted)
        assert 0 < there.values.numel() < there._most * ROWS
        assert torch.equal(there.dense().cpu(), values.float())
        assert torch.equal(there.take(rows.to(GPU)).cpu(), values[rows].float())
        assert called == {}
        found = there.multiply(x.to(GPU)).cpu().double()
        assert called == {"lossless_mm": 1}
    wanted = x.double() @ values.double().T
    assert (found - wanted).norm() < 4e-3 * wanted.norm()


def test_numbers_without_a_leading_one_lie_apart():
    """A kernel takes a code as an exponent, and what belongs to one has a leading one."""
    values = (torch.arange(-8, 8) * 2.0**-127).to(torch.bfloat16).view(2, 8)
    parts = lossless_mm.pack(values)
    assert parts.base == -1
    assert parts.values.tolist() == [-(2.0**-127), 2.0**-127]
    assert torch.equal(lossless_mm.unpack(parts, 8), values)


def test_a_table_of_tokens_is_looked_up_without_being_made_dense(monkeypatch):
    weight = draw(40, 8)
    held = SharedRows.pack(weight, torch.arange(40) < 10, weight[20])
    places = torch.tensor([3, 30, 9])
    wanted = Dense.pack(weight[[3, 20, 9]]).dense()
    assert torch.equal(held.take(places), wanted)
    with pretended(monkeypatch):
        assert torch.equal(held.to(GPU).take(places.to(GPU)).cpu(), wanted)


def test_a_twin_moves_with_its_model(monkeypatch):
    held = Sum.of(base=integers(3), outliers=apart()).slotted()
    with pretended(monkeypatch):
        assert {one.device for one in put(held, GPU).buffers()} == {GPU}
