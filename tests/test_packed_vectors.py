"""One activation with vectors of codebooks and with kept groups, multiplied where they lie."""

import pytest
import torch

from backend.formats.group_sparse import GroupSparse
from backend.formats.rows import Rows
from backend.formats.sum import Sum
from backend.formats.transposed import Transposed
from backend.formats.vector import VectorCodebook
from kernels import bitpack
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


@pytest.mark.parametrize("columns", [7, 64, 130])
def test_kept_groups_are_multiplied_where_they_lie(columns):
    mask = random(33, -(-columns // 16)) > 0
    values = integers(1, 16 * int(mask.sum()), 4, 16, "float")
    held = GroupSparse.pack(mask, values, columns)
    x = random(columns, seed=3)
    near(held.matrix().multiply(x[None])[0], held.dense().double() @ x.double())
