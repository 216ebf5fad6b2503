"""The extension reads every format where it lies and multiplies by what the format stands for."""

import pytest
import torch

from backend.formats.base import FEW, Format
from backend.formats.bitmask import BitmaskSparse
from backend.formats.columns import Columns
from backend.formats.dense import Dense
from backend.formats.entropy import EntropyCoded
from backend.formats.group_sparse import GroupSparse
from backend.formats.integer import IntegerGroups
from backend.formats.rows import Rows
from backend.formats.scalar import ScalarCodebook
from backend.formats.sparse24 import Sparse24
from backend.formats.sum import Sum
from backend.formats.table import TableCodes
from backend.formats.transposed import Transposed
from backend.formats.window import WindowCoded
from kernels import bitpack, extension, packed
from tests.format_examples import NAMES, example

COARSE = 6e-5
"""Of the norm: what activations and tables of 16 bits leave."""
ODD = [(7, 24), (33, 172), (64, 128), (5, 9), (300, 130)]


pytestmark = pytest.mark.usefixtures("loops")


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def near(found, wanted, tolerance=2e-6):
    assert found.shape == wanted.shape
    assert found.isfinite().all()
    gap = (found.double() - wanted.double()).norm()
    assert gap <= tolerance * wanted.double().norm().clamp(min=1e-9)


def rounded(x):
    """As codes are multiplied: 16 bits, a scale every 32 columns, or 128 whose largest are near."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % 128))
    parts = padded.unflatten(-1, (-1, 4, 32))
    largest = parts.abs().amax(-1, keepdim=True)
    most = largest.amax(-2, keepdim=True)
    least = largest.masked_fill(largest == 0, torch.inf).amin(-2, keepdim=True)
    largest = torch.where(most <= 8 * least, most, largest)
    whole = torch.trunc(parts * (32639 / largest) + torch.copysign(torch.tensor(0.5), parts))
    whole = whole.masked_fill(largest == 0, 0)
    return (whole.double() * (largest / 32639).double()).flatten(-3)[..., : x.shape[-1]]


def integers(rows, columns, bits, group_size, kind):
    groups = -(-columns // group_size)
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 1 << bits, (rows, columns), generator=generator)
    scales = random(rows, groups, seed=1).abs() + 0.1
    if kind == "zero-point":
        zeros = torch.randint(0, 1 << bits, (rows, groups), generator=generator)
        return IntegerGroups.pack(
            codes, scales, bits=bits, group_size=group_size, zero_points=zeros
        )
    offsets = random(rows, groups, seed=2) if kind == "float" else None
    return IntegerGroups.pack(codes, scales, offsets, bits=bits, group_size=group_size)


@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_read_where_it_lies(name):
    held = example(name)
    product = held.product()
    assert product is not None
    assert held.speed == "measured"
    x = random(held.columns, seed=5)
    near(product(x), held.dense().double() @ x.double(), COARSE)
    if (matrix := held.matrix()) is not None:
        near(matrix.dense(), held.dense())


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("kind", ["none", "float", "zero-point"])
@pytest.mark.parametrize(("rows", "columns"), ODD)
def test_integers_of_every_width_kind_and_odd_shape(bits, kind, rows, columns, loops):
    widths = bitpack.plane_widths(bits)
    # columns whose sum one lane of a block is: of all planes as one, or of each alone
    least = 32 // (max(widths) if loops == "VNNI" else min(widths))
    for group_size in (columns, 64, 32, 16, 8, 5):
        held = integers(rows, columns, bits, group_size, kind)
        near(held.matrix().dense(), held.dense())
        x = random(5, columns, seed=4)
        whole = group_size >= columns or group_size % least == 0
        x = rounded(x) if whole else x.double()
        near(held.multiply(x.float()), x @ held.dense().double().T)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("rows", "columns"), ODD)
def test_tables_of_few_and_of_many_values(bits, rows, columns, loops):
    codes = torch.randint(0, 1 << bits, (rows, columns), generator=torch.Generator().manual_seed(3))
    tables, x = random(rows, 1 << bits, seed=1), random(17, columns, seed=2)
    held = [ScalarCodebook.pack(codes, tables)]
    for group_size in (columns, 32, 8):
        scales = random(rows, -(-columns // group_size), seed=4)
        held.append(TableCodes.pack(codes, tables[0], scales, group_size))
    for one in held:
        near(one.matrix().dense(), one.dense())
        for several in (x[:3], x[:4], x):
            found = one.matrix().multiply(several)
            near(found, several.double() @ one.dense().double().T, COARSE)
    if loops in ("AVX-512", "VNNI") and bits < 5:  # short rows are multiplied in float32
        near(held[0].matrix().multiply(x[:3]), x[:3].double() @ held[0].dense().double().T)
        for one in held[1:3]:
            near(one.matrix().multiply(x[:1]), x[:1].double() @ one.dense().double().T)


@pytest.mark.parametrize("columns", [4, 12, 64, 100, 172, 196])
def test_two_of_four_are_multiplied_where_they_lie_whatever_the_columns(columns):
    kept = random(9, columns // 4, 4, seed=1).argsort(-1) < 2
    held = Sparse24.pack(random(9, columns).to(torch.bfloat16), kept.view(9, columns))
    x = random(columns, seed=3)
    near(held.matrix().multiply(x[None])[0], held.dense().double() @ x.double())


@pytest.mark.parametrize("none", [Dense.pack(torch.zeros(8, 0)), integers(8, 0, 4, 16, "float")])
def test_a_part_without_columns_adds_nothing(none):
    held = Columns.pack(torch.zeros(64), none, Dense.pack(random(8, 64)), torch.ones(64))
    near(held.matrix().dense(), held.dense())
    for count in (1, 5):
        x = random(count, 64, seed=count)
        near(held.multiply(x), x.double() @ held.dense().double().T)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("rows", "columns"), [(7, 24), (33, 172), (64, 128), (300, 130), (1, 9)])
def test_scales_and_offsets_may_be_integers_themselves(bits, rows, columns, turned):
    groups = -(-columns // 16)
    shape = (groups, rows) if turned else (rows, groups)
    for size, kind in ((16, "float"), (24, "none"), (5, "float"), (8, "zero-point")):
        inner = [integers(*shape, one, size, kind) for one in (bits, 9 - bits)]
        inner = [Transposed.of(one) for one in inner] if turned else inner
        codes = torch.arange(rows * columns).view(rows, columns) % 13
        held = IntegerGroups.pack(codes, *inner, bits=4, group_size=16)
        matrix = held.matrix()
        near(matrix.dense(), held.dense())
        near(inner[0].matrix().dense(), inner[0].dense())
        near(matrix.take(torch.tensor([rows - 1, 0])), held.dense()[[rows - 1, 0]])
        x = random(6, columns, seed=2)
        for count in (1, 2, 6):
            near(matrix.multiply(x[:count]), rounded(x[:count]) @ held.dense().double().T)


@pytest.mark.parametrize("columns", [64, 100, 7])
def test_entropy_coded_numbers_come_back_to_the_bit(columns):
    weight = random(40, columns).to(torch.bfloat16)
    held = EntropyCoded.pack(weight)
    assert torch.equal(held.matrix().dense().to(torch.bfloat16), weight)
    x = random(columns, seed=1)
    assert torch.equal(held.product()(x), Dense.pack(weight).matrix().product()(x))


@pytest.mark.parametrize("columns", [64, 128, 100, 7, 1])
def test_numbers_with_exponents_of_four_bits_come_back_and_are_multiplied(columns):
    weight = (random(300, columns) * 2 ** (9 * random(300, columns, seed=3))).to(torch.bfloat16)
    weight[::7] = 0
    held = WindowCoded.pack(weight)
    assert held.apart_rows.numel() > columns
    assert torch.equal(held.matrix().dense().to(torch.bfloat16), weight)
    assert torch.equal(held.take(torch.tensor([5, 299, 0])), weight.float()[[5, 299, 0]])
    x = random(2, columns, seed=1)
    for several in (x, x[:1]):
        found = held.matrix().multiply(several)
        near(found, several.double() @ weight.double().T)


def test_exponents_of_four_bits_by_hand():
    """1, -1.5 and 0 of the two commonest exponents; infinity and what is no number lie apart."""
    weight = torch.tensor([[1.0, -1.5, 0.0, torch.inf, torch.nan]]).to(torch.bfloat16)
    held = WindowCoded.pack(weight)
    assert held.table[:2].tolist() == [127, 0]
    assert held.codes.tolist() == [[0, 1 | 15 << 4, 15]]
    assert held.rest.tolist() == [[0, 0x80 | 64, 0, 0, 0]]
    assert held.apart_columns.tolist() == [3, 4]
    assert torch.equal(held.exact().view(torch.int16), weight.view(torch.int16))
    held.check()


@pytest.mark.parametrize("tokens", [1, 2, FEW, FEW + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_activations_and_many_give_the_same(tokens, dtype):
    held = integers(40, 64, 4, 32, "float")
    x = random(2, tokens, 64, seed=1).to(dtype)
    near(
        held.multiply(x),
        x.double() @ held.dense().double().T,
        4e-3 if dtype.itemsize == 2 else COARSE,
    )


MANY = [*range(1, 18), 33, 64, 65]


def of_numbers(kind, rows, columns):
    """A format of 16 bits a number in a layout of its own, some entries zero."""
    weight = random(rows, columns, seed=7).to(torch.bfloat16)
    if kind == "2 of 4":
        kept = random(rows, columns // 4, 4, seed=1).argsort(-1) < 2
        return Sparse24.pack(weight, kept.view(rows, columns))
    kept = random(rows, columns, seed=2) > 0.3
    kept[rows // 2] = False
    return {
        "float32": lambda: Dense.pack(weight, torch.float32),
        "bfloat16": lambda: Dense.pack(weight),
        "bitmask": lambda: BitmaskSparse.pack(weight, kept),
        "window": lambda: WindowCoded.pack(
            (weight * 2 ** (6 * random(rows, columns, seed=3))).to(torch.bfloat16)
        ),
        "entropy": lambda: EntropyCoded.pack(weight),
        "mixed": lambda: Rows.pack(
            kept[:, 0], Dense.pack(weight[kept[:, 0]]), Dense.pack(weight[~kept[:, 0]])
        ),
    }[kind]()


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "bitmask", "2 of 4", "window", "entropy"])
@pytest.mark.parametrize(("rows", "columns"), [(33, 172), (64, 256), (5, 8), (21, 836)])
def test_numbers_meet_any_number_of_activations(kind, rows, columns):
    held = of_numbers(kind, rows, columns)
    dense = held.dense().double()
    x = random(max(MANY), columns, seed=4)
    alone = torch.stack([held.matrix().multiply(one) for one in x[:3]])
    near(alone, x[:3].double() @ dense.T)
    for count in MANY:
        found = held.matrix().multiply(x[:count])
        near(found, x[:count].double() @ dense.T)
        if kind in ("float32", "bfloat16", "entropy"):
            assert torch.equal(found[:3], alone[:count]), "a sum has one order"


@pytest.mark.parametrize("kind", ["mixed", "bitmask", "window"])
def test_threads_share_tiles_and_change_nothing(kind):
    held = of_numbers(kind, 600, 260)
    x, found = random(9, 260), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(held.matrix().multiply(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    near(found[0], x.double() @ held.dense().double().T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns"), [(37, 40), (16, 7), (48, 1024), (20, 1032)])
def test_a_sum_of_dense_numbers_has_one_order_wherever_its_row_stands(dtype, rows, columns):
    weight, x = random(rows, columns).to(dtype), random(3, columns, seed=1)
    found = packed.dense(weight).multiply(x)
    near(found, x @ weight.to(torch.float32).T)
    for row in (0, 5, rows - 1):
        alone = packed.dense(weight[row : row + 1].clone()).multiply(x)
        assert torch.equal(found[:, row : row + 1], alone)


@pytest.mark.parametrize("tokens", [1, FEW, FEW + 1])
def test_gradients_flow_back_through_what_is_held(tokens):
    held = integers(40, 64, 4, 32, "float")
    x = random(tokens, 64, seed=1).requires_grad_()
    held.multiply(x).sum().backward()
    near(x.grad, held.dense().sum(0).expand(tokens, -1))


def test_what_is_read_takes_no_bytes_beside_the_format():
    held = integers(64, 128, 4, 128, "float")
    before = held.nbytes
    held.multiply(random(1, 128))
    assert held.packed() is held
    assert held.nbytes == before
    assert not [value for value in vars(held).values() if isinstance(value, torch.Tensor)]


def test_without_an_extension_everything_is_made_dense(monkeypatch):
    monkeypatch.setattr(extension, "_found", lambda: (None, "left out by the test"))
    held: Format = integers(16, 32, 3, 32, "none")
    assert held.matrix() is None
    assert held.speed == "emulated"
    x = random(2, 32)
    near(held.multiply(x), x.double() @ held.dense().double().T)


def test_transposed_and_sums_reach_the_step():
    held = Sum.of(
        one=Transposed.of(integers(24, 40, 4, 40, "none")), two=Dense.pack(random(40, 24))
    )
    x = random(24, seed=3)
    near(held.product()(x), held.dense().double() @ x.double())
    turned = Transposed.of(Sum.of(one=held, two=held, three=Dense.pack(random(40, 24, seed=1))))
    near(turned.matrix().dense(), turned.dense())
    x = random(40, seed=4)
    near(turned.product()(x), turned.dense().double() @ x.double())


def thinned(kind, rows, columns):
    """A matrix of which only whole rows can be written."""
    weight = random(rows, columns, seed=7)
    if kind == "2 of 4":
        kept = random(rows, columns // 4, 4, seed=1).argsort(-1) < 2
        return Sparse24.pack(weight, kept.view(rows, columns))
    return BitmaskSparse.pack(weight, random(rows, columns, seed=2) > -1)


def holding(place, kind):
    """A matrix that reads parts of the rows of one behind a mask or of two of every four."""
    if place == "transposed":
        return Transposed.of(thinned(kind, 40, 204))
    if place == "kept values":
        mask = torch.arange(40 * 64).view(40, 64) % 5 != 0
        held = BitmaskSparse.pack(random(40, 64), mask)
        held.values = thinned(kind, 1, int(mask.sum()))
        return held
    values = integers(1, 640, 4, 8, "none")  # of which the tenth group's scale is not read first
    values.scales = thinned(kind, 1, 80)
    return GroupSparse.pack(torch.ones(10, 8, dtype=torch.bool), values, 64)


@pytest.mark.parametrize("kind", ["2 of 4", "bitmask"])
@pytest.mark.parametrize("place", ["transposed", "kept values", "scales of groups"])
def test_parts_of_rows_are_read_of_what_can_be_written_whole_alone(place, kind):
    held = holding(place, kind)
    held.check()
    for count in (1, 3):
        x = random(count, held.columns, seed=count)
        near(held.matrix().multiply(x), x.double() @ held.dense().double().T, COARSE)
    near(held.matrix().dense(), held.dense())


@pytest.mark.parametrize("columns", [4, 8, 12, 64, 172])
def test_two_of_four_in_every_pattern_and_at_a_ragged_end(columns):
    pairs = torch.combinations(torch.arange(4))
    generator = torch.Generator().manual_seed(columns)
    chosen = pairs[torch.randint(0, 6, (36, columns // 4), generator=generator)]
    mask = torch.zeros(36, columns // 4, 4, dtype=torch.bool).scatter_(2, chosen, True)
    weight = random(36, columns) * mask.view(36, columns)
    held = Sparse24.pack(weight, mask.view(36, columns))
    assert torch.equal(held.matrix().dense(), weight.to(torch.bfloat16).to(torch.float32))
    x = random(3, columns, seed=1)
    near(held.multiply(x), x.double() @ held.dense().double().T)
