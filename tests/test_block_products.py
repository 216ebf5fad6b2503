"""Steps multiply block by block and core by core, whatever holds the blocks, as torch does."""

import pytest
import torch

from backend.formats import BitmaskSparse, Dense, LowRank, Monarch, Sum, TensorTrain
from kernels import packed, products
from tests.test_packed import COARSE, integers, near, random

pytestmark = pytest.mark.usefixtures("loops")


def factor(kind, rows, columns, seed):
    """A factor of a Monarch matrix."""
    weight = random(rows, columns, seed=seed)
    return {
        "dense": lambda: Dense.pack(weight),
        "float32": lambda: Dense.pack(weight, torch.float32),
        "codes": lambda: integers(rows, columns, 4, columns, "float"),
        "masked": lambda: BitmaskSparse.pack(weight, random(rows, columns, seed=seed + 1) > 0),
    }[kind]()


@pytest.mark.parametrize("kind", ["dense", "float32", "codes", "masked"])
@pytest.mark.parametrize(
    ("outputs", "tall", "inputs", "rank", "wide"),
    [(4, 9, 4, 3, 5), (1, 7, 3, 2, 40), (3, 16, 1, 20, 33), (4, 64, 4, 10, 32)],
)
def test_blocks_along_a_diagonal_meet_any_number_of_activations(
    kind, outputs, tall, inputs, rank, wide
):
    left = factor(kind, outputs * tall, inputs * rank, 1)
    right = factor(kind, inputs * outputs * rank, wide, 2)
    held = Monarch(outputs * tall, inputs * wide, left, right, inputs=inputs, outputs=outputs)
    assert right.matrix() is not None
    x = random(7, held.columns, seed=3)
    wanted = x.double() @ held.dense().double().T
    for count in (1, 3, 7):
        near(held.product()(x[:count]), wanted[:count], 4 * COARSE if kind == "codes" else 4e-6)


def test_outputs_of_blocks_are_dealt_in_chunks_by_hand():
    """Blocks of four rows of one number: 1 to 4 of the first input, 5 to 8 of the second."""
    held = Dense.pack(torch.arange(1.0, 9).view(8, 1)).matrix()
    dealt = packed.blocks(held, 2, 2)(torch.tensor([[1.0, 10.0]]))
    assert dealt.tolist() == [[1, 2, 50, 60, 3, 4, 70, 80]]
    with pytest.raises(ValueError, match="dealt by 3"):
        packed.blocks(held, 2, 3)


def test_no_step_multiplies_by_factors_whose_blocks_cannot_be_read_apart():
    left = Sum.of(one=Dense.pack(random(12, 6)), two=LowRank.pack(random(12, 2), random(2, 6)))
    held = Monarch(12, 10, left, Dense.pack(random(24, 5)), inputs=2, outputs=4)
    assert left.matrix() is None
    assert held.product() is None
    assert held.speed == "emulated"
    x = random(3, 10, seed=3)
    near(held.multiply(x), x.double() @ held.dense().double().T)


@pytest.mark.parametrize("count", [1, 4])
def test_blocks_of_large_matrices_are_divided_among_threads(count):
    left, right = factor("dense", 512, 256, 1), factor("codes", 1024, 256, 2)
    held = Monarch(512, 1024, left, right, inputs=4, outputs=4)
    x, found = random(count, 1024), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(held.product()(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    near(found[0], x.double() @ held.dense().double().T, 4 * COARSE)


CHAINS = [
    [(1, 4, 2, 5), (5, 3, 6, 7), (7, 2, 3, 1)],
    [(1, 32, 2, 21), (21, 2, 64, 1)],
    [(1, 8, 16, 11), (11, 16, 8, 1)],
    [(1, 5, 7, 1)],
]


@pytest.mark.parametrize("shapes", CHAINS)
@pytest.mark.parametrize("rounded", [False, True])
def test_cores_are_multiplied_one_after_another(shapes, rounded):
    cores = [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    sizes = [(one[0] * one[1], one[2] * one[3]) for one in shapes]
    codes = [integers(*size, 4, 64, "none") for size in sizes] if rounded else None
    held = TensorTrain.pack(cores, codes)
    x = random(9, held.columns, seed=3)
    wanted = x.double() @ held.dense().double().T
    for count in (1, 2, 9):
        near(held.product()(x[:count]), wanted[:count], 4 * COARSE if rounded else 4e-6)


def test_a_repeated_product_is_one_between_identities():
    weight = random(3, 4)
    repeated = products.repeated(Dense.pack(weight, torch.float32).product(), 5, 2)
    whole = torch.kron(torch.kron(torch.eye(5), weight), torch.eye(2))
    x = random(6, 40, seed=1)
    near(repeated(x), x.double() @ whole.double().T)
    with pytest.raises(ValueError, match="no bias"):
        products.repeated(Dense.pack(weight).product().plus(torch.ones(3)), 5, 2)
