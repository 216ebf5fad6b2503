"""AP-INT: bipolar integers by hand, plane by plane, and against what has a zero."""

import pytest
import torch

from backend import formats
from backend.methods.quantise import ap_int
from backend.methods.quantise.ap_int import ApInt
from tests.contract import inputs_of, statistics_of
from tests.looking import normal
from tests.test_flatquant import lost


def test_every_bit_is_a_plus_or_a_minus_one():
    """By hand, 3 bits: code 5 is 101, so 4 - 2 + 1 = 3 eighths; code 0 is -7 eighths."""
    table = ap_int.bipolar(torch.zeros(1), 3)
    assert (8 * table).tolist() == [-7, -5, -3, -1, 1, 3, 5, 7]
    for code in range(8):
        signs = [1 if code >> place & 1 else -1 for place in range(3)]
        assert 8 * float(table[code]) == sum(sign << place for place, sign in enumerate(signs))


def test_inputs_are_odd_numbers_of_half_steps_by_hand():
    """Two bits: the largest, 3, is one and a half steps of 2; 0.1 and -0.1 are half a step."""
    made = formats.RoundedInputs.pack(formats.Dense.pack(torch.eye(4)), bits=2, odd=True)
    found = made.multiply(torch.tensor([[3.0, 0.1, -0.1, -2.2]]))
    assert found.tolist() == [[3.0, 1.0, -1.0, -3.0]]


def test_a_product_of_both_is_a_sum_of_products_of_planes_of_signs():
    """4-bit weights by 4-bit inputs: sixteen products of signs, each times a power of two."""
    weight, inputs = normal(16, 64), normal(5, 64, seed=1)
    held = ApInt(4.75, inputs=4, group_size=0).fit(weight, statistics_of(inputs_of(64)))
    codes, scales = held.held.codes.get().long(), held.held.scales.dense()
    seen = held.seen(inputs)
    step = inputs.abs().amax(1, keepdim=True) / 7.5
    levels = (seen / step + 7.5).round().long()  # 0 to 15, as codes of weights are
    total = torch.zeros(5, 16)
    for first in range(4):
        for second in range(4):
            signs = 2.0 * (codes >> first & 1) - 1, 2.0 * (levels >> second & 1) - 1
            total += (signs[1] @ signs[0].T) * 2 ** (first + second)
    expected = total * (step / 2) * (scales.T / 16)
    assert torch.allclose(held.multiply(inputs), expected, rtol=1e-3, atol=1e-3)


def test_no_offset_is_held():
    """Codes of 4 bits, a scale for each row of 128, a table of 16 entries, and the reach."""
    held = ApInt(4.15).fit(normal(128, 128), statistics_of(inputs_of(128)))
    assert held.nbytes == 128 * 64 + 128 * 2 + 16 * 2 + 4
    assert held.bits == pytest.approx(4.125 + 8 * 36 / 128**2)


def test_more_bits_lose_less_on_either_side():
    weight, inputs = normal(64, 128), inputs_of(128)
    seen = statistics_of(inputs)

    def loss(bits, width):
        return lost(ApInt(bits, inputs=width).fit(weight, seen), weight, inputs)

    assert loss(2.25, 16) > 2 * loss(3.25, 16) > 4 * loss(4.25, 16)
    assert loss(6.25, 3) > 2 * loss(6.25, 4) > 4 * loss(6.25, 6)
