"""Codes meet any number of activations, and what stands beside one changes nothing of it."""

import pytest
import torch

from backend.formats.base import FEW
from backend.formats.integer import IntegerGroups
from tests.test_packed import COARSE, MANY, ODD, integers, near, random, rounded

pytestmark = pytest.mark.usefixtures("loops")


@pytest.mark.parametrize("bits", [1, 3, 4, 7, 8])
@pytest.mark.parametrize("group_size", [32, 512])
@pytest.mark.parametrize(("rows", "columns"), ODD)
def test_activations_beside_each_other_change_nothing(rows, columns, group_size, bits):
    held = integers(rows, columns, bits, group_size, "float")
    x = random(7, columns, seed=1)
    x[1, columns // 2] *= 1000  # its columns are not worth the same
    alone = torch.stack([held.multiply(one) for one in x])
    assert torch.equal(held.multiply(x[:3]), alone[:3])
    assert torch.equal(held.multiply(x)[:4], held.multiply(x[:4]))
    near(held.multiply(x), alone, 4 * COARSE if bits == 1 else 2e-6)  # few are not rounded


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("columns", [128, 512])
def test_the_largest_codes_and_activations_stay_in_32_bits(bits, columns):
    codes = torch.full((17, columns), (1 << bits) - 1)
    held = IntegerGroups.pack(codes, torch.ones(17, 1), bits=bits, group_size=columns)
    x = torch.ones(6, columns)
    x[1], x[2, ::2] = -1, -1
    wanted = x.double() @ held.dense().double().T
    for count in (1, 2, 3, 6):
        near(held.multiply(x[:count]), wanted[:count])


@pytest.mark.parametrize("group_size", [64, 512])
def test_loud_activations_change_nothing_beside_them(group_size):
    held = integers(40, 512, 4, group_size, "float")
    x = random(12, 512, seed=1)
    quiet = held.multiply(x)
    x[::3, 5] *= 1000  # so that their first 128 columns have four steps
    loud = held.multiply(x)
    kept = torch.arange(12) % 3 != 0
    assert torch.equal(loud[kept], quiet[kept])
    assert torch.equal(loud[~kept], held.multiply(x[~kept]))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(
    ("rows", "columns", "group_size"),
    [(70, 300, 64), (16, 512, 512), (33, 36, 32), (34, 640, 128), (35, 420, 96)],
)
def test_codes_meet_any_number_of_activations(bits, rows, columns, group_size):
    held = integers(rows, columns, bits, group_size, "float" if bits % 2 else "zero-point")
    x = random(max(MANY), columns, seed=4)
    x[::3, columns // 2] *= 100  # so that some have one step for 128 columns and some have not
    x = rounded(x)
    wanted, x = x @ held.dense().double().T, x.float()
    for count in MANY:
        near(held.matrix().multiply(x[:count]), wanted[:count])


@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_loud_channel_costs_its_neighbours_no_more_than_bfloat16_would(count):
    columns = 256
    codes = torch.randint(0, 16, (40, columns), generator=torch.Generator().manual_seed(1))
    codes[:, :32] = 8  # zero: what is loud itself adds nothing
    held = IntegerGroups.pack(codes, torch.ones(40, 8), bits=4, group_size=32)
    x = random(count, columns, seed=2)
    wanted = x.double() @ held.dense().double().T
    error = (x.bfloat16().double() @ held.dense().double().T - wanted).norm()
    for loud in (1, 2, 4, 7, 9, 1000):
        x[:, 3] = loud * x[:, 32:128].abs().amax(-1)
        found = held.matrix().multiply(x)
        assert 5 * (found.double() - wanted).norm() < error
        if loud > 8 * 4:  # each 32 columns have a step of their own
            near(found, wanted, COARSE)


def test_codes_meet_more_activations_than_stay_near_a_core(loops):
    held = integers(512, 256, 4, 64, "float")
    matrix, x = held.matrix(), random(600, 256)
    assert (matrix.most >= 600) == (loops == "VNNI")
    assert integers(64, 256, 4, 64, "float").matrix().most == FEW  # too small to be worth it
    found = matrix.multiply(x)
    near(found, rounded(x).to(torch.float32) @ held.dense().T, COARSE)
    assert torch.equal(found[190:210], matrix.multiply(x[190:210]))  # parts meet at 200
    assert torch.equal(matrix.multiply(x[:257])[250:], matrix.multiply(x[250:257]))


@pytest.mark.parametrize("tokens", [2, 40])
def test_threads_change_nothing(tokens):
    held = integers(600, 1024, 3, 64, "float")
    x, found = random(tokens, 1024), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(held.multiply(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, 1e-38])
def test_what_is_not_finite_stays_so_and_nothing_becomes_so(value, count):
    held = integers(40, 64, 4, 32, "float")
    x = random(count, 64, seed=1)
    beside = held.multiply(x[1:]) if count > 4 else torch.stack([*map(held.multiply, x)])[1:]
    x[0, :32] = value
    found = held.multiply(x)
    if value == value and value < 1:
        near(found[0], held.dense()[:, 32:].double() @ rounded(x[0, 32:]))
    else:
        assert not found[0].isfinite().any()
    assert torch.equal(found[1:], beside)
