"""Formats: the bytes table of the measurement protocol, round trips, products."""

import json

import pytest
import torch

from backend.formats import (
    BitmaskSparse,
    Dense,
    HeldEmbedding,
    HeldLinear,
    LowRank,
    Monarch,
    Outliers,
    RoundedInputs,
    Sparse24,
    VectorCodebook,
    from_header,
)
from backend.formats.base import by_dense
from kernels import bfloat16, extension
from tests.format_examples import COLUMNS, NAMES, ROWS, example, integers, normal, two_of_four

EVERY = torch.arange(320).repeat(100, 1)
BYTE_INDICES = torch.arange(ROWS * COLUMNS // 8).view(ROWS, -1) % 256


@pytest.mark.parametrize(
    ("held", "bits"),
    [
        (lambda: integers(4, 128, "zero-point"), 4 + 20 / 128),
        (lambda: integers(4, 32, "float"), 5.0),
        (lambda: Sparse24.pack(normal(ROWS, COLUMNS), two_of_four(ROWS, COLUMNS)), 9.0),
        (lambda: BitmaskSparse.pack(normal(100, 320), EVERY % 2 == 0), 9.0),
        (lambda: BitmaskSparse.pack(normal(100, 320), EVERY % 5 > 0), 13.8),
        (lambda: Dense.pack(normal(ROWS, COLUMNS)), 16.0),
        (lambda: Monarch.pack(normal(4, 32, 8, 3), normal(8, 4, 3, 32)), 48 * (1 / 32 + 1 / 32)),
        (lambda: LowRank.pack(normal(288, 16), normal(16, 288)), 16 * 16 * 576 / 288**2),
        (
            lambda: VectorCodebook.pack(BYTE_INDICES, normal(256, 8)),
            8 / 8 + 256 * 8 * 16 / (ROWS * COLUMNS),
        ),
    ],
)  # fmt: skip
def test_a_format_takes_the_bits_that_the_arithmetic_says(held, bits):
    assert held().bits == pytest.approx(bits, abs=1e-12)


def test_inputs_are_rounded_in_blocks_by_hand():
    """Steps of 14 / 7 and 7 / 7; 127 is the largest code of the wide block, with step 2."""
    held = Dense.pack(torch.eye(6))
    made = RoundedInputs.pack(held, bits=4, block=3)
    activation = torch.tensor([[14.0, 2.9, -5.2, 7.0, -0.4, 0.6]])
    assert made.multiply(activation).tolist() == [[14.0, 2.0, -6.0, 7.0, 0.0, 1.0]]
    order = torch.tensor([3, 4, 5, 0, 1, 2])
    made = RoundedInputs.pack(held, bits=4, block=3, wide=3, order=order)
    activation = torch.tensor([[14.0, 2.9, -5.2, 254.0, 3.1, -0.9]])
    assert made.multiply(activation).tolist() == [[254.0, 4.0, 0.0, 14.0, 2.0, -6.0]]
    assert torch.equal(made.dense()[:3, 3:], torch.eye(3)), "the first columns held are old 3 to 5"
    half = RoundedInputs.pack(held, bits=4, block=3, reach=0.5)
    assert half.multiply(activation).tolist()[0][0] == 7.0, "cut off at the largest code"


def test_inputs_may_be_divided_before_they_are_rounded_by_hand():
    """14 / 2 and 3 / 4 at a step of 1 are 7 and 1; the matrix meets what is divided."""
    made = RoundedInputs.pack(Dense.pack(torch.eye(2)), bits=4, divisors=torch.tensor([2.0, 4.0]))
    assert made.multiply(torch.tensor([[14.0, 3.0]])).tolist() == [[7.0, 1.0]]
    assert made.dense().tolist() == [[0.5, 0.0], [0.0, 0.25]]


def test_inputs_may_be_turned_by_two_small_matrices():
    """As one large matrix, their Kronecker product, would."""
    left, right = normal(8, 8).bfloat16().float(), normal(16, 16).bfloat16().float()
    made = RoundedInputs.pack(Dense.pack(normal(4, 256)), (left, right), bits=16)
    activation = normal(5, 256, seed=4)
    whole = torch.block_diag(*2 * [torch.kron(left, right)])
    assert torch.allclose(made.seen(activation), activation @ whole, atol=1e-4)
    assert torch.allclose(made.dense(), made.held.dense() @ whole.T, atol=1e-3)
    assert made.nbytes == 2 * (4 * 256 + 64 + 256) + 4


def test_one_percent_of_outliers_takes_a_third_of_a_bit_and_an_offset_a_row():
    mask = (torch.arange(10_000).view(100, 100) % 100) == 0
    held = Outliers.pack(normal(100, 100), mask)
    assert held.nbytes == 100 * (2 + 2) + 100 * 4


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_all_that_is_needed(name):
    held = example(name)
    saved = {key: value.clone() for key, value in held.state_dict().items()}
    header = json.loads(json.dumps(held.header()))
    expected = held.dense()
    for buffer in held.buffers():
        buffer.zero_()
    twin = from_header(header)
    twin.load_state_dict(saved)
    assert torch.equal(twin.dense(), expected)
    assert twin.nbytes == sum(value.nbytes for value in saved.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_the_product_is_that_of_the_dense_matrix(name, tokens):
    held = example(name)
    activation = normal(2, tokens, COLUMNS, seed=3)
    expected = activation @ held.dense().T
    error = (held.multiply(activation) - expected).norm() / expected.norm()
    assert error < 6e-5  # what activations of 16 bits leave


@pytest.mark.parametrize("name", NAMES)
def test_packing_for_the_fastest_product_keeps_bytes_and_result(name):
    held = example(name)
    activation = normal(2, COLUMNS, seed=3).to(torch.bfloat16)
    expected = activation.float() @ held.dense().T
    before = held.nbytes
    packed = held.packed()
    assert packed.nbytes == before
    error = (packed.multiply(activation).float() - expected).norm() / expected.norm()
    assert error < 8e-3


def test_torchs_packed_products_serve_8_bits_by_row_and_4_bits_in_groups(monkeypatch):
    monkeypatch.setattr(extension, "_found", lambda: (None, "left out by the test"))
    assert example("int8 by row").packed().key == "int8-rows"
    assert example("int4 with offsets").packed().key == "int4-tiles"
    assert example("int8 by row").packed().speed == "measured"
    odd = integers(8, 172, "none", columns=172)
    assert odd.packed() is odd, "torch reads past a row that 32 does not divide"


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_integer_groups_hold_the_formula(bits):
    held = integers(bits, 32)
    codes = held.codes.get().double()
    scales = held.scales.dense().double().repeat_interleave(32, 1)
    offsets = held.offsets.dense().double().repeat_interleave(32, 1)
    expected = (codes - 2 ** (bits - 1)) * scales + offsets
    assert torch.allclose(held.dense().double(), expected, rtol=1e-6, atol=1e-6)


def test_a_zero_point_means_weight_zero():
    held = integers(4, 64, "zero-point")
    same = held.codes.get() == held.zero_points.get().repeat_interleave(64, 1)
    assert torch.all(held.dense()[same] == 0)
    assert torch.all(held.dense()[~same] != 0)


def test_sparse_values_may_be_quantised_in_their_turn():
    held = Sparse24.pack(normal(ROWS, COLUMNS), two_of_four(ROWS, COLUMNS))
    (leaf,) = held.dense_leaves()
    assert leaf is held.values
    held.values = integers(4, 64, columns=COLUMNS // 2)
    assert held.bits == pytest.approx((4 + 32 / 64) / 2 + 1)


@pytest.mark.parametrize("name", ["2:4", "bitmask"])
def test_a_sparse_format_says_which_entries_it_holds_and_in_what_order(name):
    held = example(name)
    assert torch.equal(held.kept(), held.dense() != 0)
    assert torch.equal(held.compact(held.dense()), held.values.dense())


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_table_are_looked_up_by_their_places(name):
    held, tokens = example(name), torch.tensor([[3, 0], [127, 3]])
    found = HeldEmbedding(held, torch.float32, 2.0)(tokens)
    assert torch.equal(found, 2 * held.dense()[tokens])


@pytest.mark.parametrize(
    ("known", "quick"),
    [
        ({"architecture": "x86_64", "amx_bf16": True, "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "cpu_name": "AMD EPYC"}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "cpu_name": "Intel Xeon"}, False),
        ({"architecture": "x86_64", "cpu_name": "AMD EPYC"}, False),
        ({"architecture": "aarch64"}, True),
        (None, True),
    ],
)
def test_many_halves_meet_a_dense_matrix_in_the_type_that_is_quicker(monkeypatch, known, quick):
    if known is None:  # torch 2.8 does not tell
        monkeypatch.delattr(torch.cpu, "get_capabilities")
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    bfloat16.quick.cache_clear()
    taken, linear = [], torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda x, w: taken.append((x.dtype, w.dtype)) or linear(x, w)
    )
    x, weight = torch.randn(3, 8).to(torch.bfloat16), torch.randn(4, 8)
    found = by_dense(x, weight)
    bfloat16.quick.cache_clear()
    assert taken == [(torch.bfloat16 if quick else torch.float32,) * 2]
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), x.float() @ weight.T, atol=0.1)


def test_a_held_linear_adds_its_bias():
    held, bias = example("low rank"), normal(ROWS)
    activation = normal(3, COLUMNS)
    expected = activation @ held.dense().T + bias
    assert torch.allclose(HeldLinear(held, bias)(activation), expected, atol=1e-4)


def test_a_2_4_mask_must_keep_two_in_four():
    with pytest.raises(ValueError, match="exactly two of every four"):
        Sparse24.pack(normal(4, 8), torch.ones(4, 8, dtype=torch.bool))
