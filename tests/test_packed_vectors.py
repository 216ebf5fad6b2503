"""Vectors of codebooks, kept groups, signs with thin factors and Huffman codes, where they lie."""

import pytest
import torch

from backend.formats.binary import BinaryCodes
from backend.formats.dense import Dense
from backend.formats.entropy import EntropyCoded
from backend.formats.group_sparse import GroupSparse
from backend.formats.rows import Rows
from backend.formats.signs import SignBlock
from backend.formats.sum import Sum
from backend.formats.transposed import Transposed
from backend.formats.vector import VectorCodebook
from kernels import bitpack, huffman
from tests.test_packed import COARSE, integers, near, random

pytestmark = pytest.mark.usefixtures("loops")


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("entries", [1, 3, 40, 300])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_vectors_of_every_length_are_added_and_multiplied_where_they_lie(dimension, entries, bits):
    generator = torch.Generator().manual_seed(dimension)
    indices = torch.randint(0, 1 << bits, (11, entries), generator=generator)
    held = VectorCodebook.pack(indices, random(1 << bits, dimension, seed=1))
    apart = torch.arange(11) % 3 == 0
    tolerance = COARSE if dimension == 1 else 2e-6  # rows of single numbers are tables of codes
    parts = Rows.pack(apart, _of(held, apart), _of(held, ~apart))
    for one in (held, Transposed.of(held), Transposed.of(Sum.of(a=held, b=held)), parts):
        for matrix in (one, Transposed.of(one)):
            x = random(matrix.columns, seed=2)
            found = matrix.matrix().multiply(x[None])[0]
            near(found, matrix.dense().double() @ x.double(), tolerance)
        near(one.matrix().dense(), one.dense())


def _of(held, rows):
    indices = bitpack.unpack_plane(held.indices, held.index_bits, held.columns // held.dimension)
    return VectorCodebook.pack(indices[rows], held.codebook)


@pytest.mark.parametrize("columns", [7, 64, 130, 700])
@pytest.mark.parametrize("size", [5, 8, 16, 32])
@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("kind", ["none", "float", "zero-point"])
def test_kept_groups_are_multiplied_where_they_lie(columns, size, bits, kind):
    for least in (-9, 0, 1.2):  # all are kept, half of them, few
        mask = random(33, -(-columns // size)) > least
        mask[-1, -1] = True
        values = integers(1, size * int(mask.sum()), bits, size, kind)
        held = GroupSparse.pack(mask, values, columns)
        matrix, x = held.matrix(), random(2, columns, seed=3)
        for several in (x[:1], x):
            near(matrix.multiply(several), several.double() @ held.dense().double().T)
        near(matrix.dense(), held.dense())
        near(matrix.take(torch.tensor([30, 3, 4])), held.dense()[[30, 3, 4]])


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (17, 24), (33, 130), (40, 700), (300, 128)])
@pytest.mark.parametrize("rank", [1, 3, 20])
def test_signs_are_multiplied_by_their_factors(rows, columns, rank):
    positive, left = random(rows, columns) > 0.3, random(rows, rank, seed=1)
    held = SignBlock.pack(positive, left, random(rank, columns, seed=2))
    product = held.product()
    for several in (random(1, columns, seed=3), random(23, columns, seed=4)):
        near(product(several), several.double() @ held.dense().double().T)
    near(held.matrix().dense(), held.dense())


@pytest.mark.parametrize("symbols", [1, 2, 30])
@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (64, 128), (41, 300), (5, 1030)])
def test_exponents_of_the_longest_codes_come_back_wherever_a_row_begins(symbols, rows, columns):
    generator = torch.Generator().manual_seed(rows)
    exponents = torch.empty(rows * columns).geometric_(0.5, generator=generator)
    exponents = exponents.clamp(max=symbols)  # halves of what is left: codes of 12 bits
    exponents[: min(symbols, exponents.numel())] = torch.arange(min(symbols, exponents.numel())) + 1
    signs = torch.randn(rows * columns, generator=generator).sign()
    weight = (signs * 1.25 * 2.0**-exponents).view(rows, columns).to(torch.bfloat16)
    held = EntropyCoded.pack(weight)
    if symbols == 30 and rows > 1:
        assert int(held.lengths.max()) == huffman.LIMIT
    assert torch.equal(held.exact(), weight)
    matrix = held.matrix()
    assert torch.equal(matrix.dense(), weight.float())
    places = torch.tensor([rows - 1, 0])
    assert torch.equal(matrix.take(places), weight[places].float())
    x = random(5, columns, seed=3)
    for count in (1, 4, 5):
        found = matrix.multiply(x[:count])
        assert torch.equal(found, Dense.pack(weight.float()).matrix().multiply(x[:count]))


@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize(
    ("rows", "columns", "group_size"),
    [(33, 172, 32), (64, 128, 128), (17, 20, 20), (7, 256, 64), (300, 300, 160), (40, 9, 9)],
)
def test_planes_of_signs_meet_any_number_of_activations(planes, rows, columns, group_size, loops):
    groups = -(-columns // group_size)
    signs, scales = random(planes, rows, columns) > 0, random(planes, rows, groups, seed=1)
    held = BinaryCodes.pack(signs, scales, random(rows, groups, seed=2), group_size)
    x = random(6, columns, seed=3)
    wanted = x.double() @ held.dense().double().T
    looked_up = columns <= 256 and loops in ("AVX-512", "VNNI")  # in float32
    for count in (1, 3, 6):
        tolerance = 2e-6 if looked_up and count < 4 else COARSE
        near(held.matrix().multiply(x[:count]), wanted[:count], tolerance)
