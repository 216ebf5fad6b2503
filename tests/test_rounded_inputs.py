"""Products with rounded inputs are those of their codes as integers, whatever rounds them."""

import pytest
import torch

from backend.formats import Dense, IntegerGroups, RoundedInputs, Rows, Sum, TableCodes
from backend.formats.rounded_inputs import largest
from backend.methods.quantise.ap_int import ApInt
from backend.methods.quantise.comet import Comet
from backend.methods.quantise.flatquant import Flatquant
from tests.contract import inputs_of, statistics_of
from tests.test_packed import near, random

MANY = [*range(1, 18), 33, 64]


pytestmark = pytest.mark.usefixtures("loops")


def codes_of(rows, columns, bits, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 1 << bits, (rows, columns), generator=generator)


def groups_of(rows, columns, bits, group_size, kind="float"):
    groups = -(-columns // group_size)
    scales, offsets = random(rows, groups, seed=1).abs() + 0.1, None
    zeros = codes_of(rows, groups, bits, seed=2) if kind == "zero-point" else None
    if kind == "float":
        offsets = random(rows, groups, seed=3)
    settings = {"bits": bits, "group_size": group_size, "zero_points": zeros}
    return IntegerGroups.pack(codes_of(rows, columns, bits), scales, offsets, **settings)


def judged(made, x):
    """What the extension multiplies beside the product, in float64, of what torch rounds."""
    assert made.speed == "measured"
    near(made.multiply(x), made.seen(x).double() @ made.held.dense().double().T)


@pytest.mark.parametrize("inputs", range(2, 9))
@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_meet_codes_of_any_widths_in_blocks_of_any_size(bits, inputs):
    rows, columns = 37, 300
    order = random(columns, seed=9).argsort()
    x = random(17, columns, seed=4)
    for group_size in (32, columns):
        held = groups_of(rows, columns, bits, group_size, "zero-point" if bits % 2 else "float")
        for block in (16, 32, 64, 128, columns, 48, 7):
            settings = {"bits": inputs, "block": block}
            wide = 2 * block if 2 * block < columns else 0
            for more in (
                {"wide": wide, "order": order, "reach": 0.85},
                {"odd": True},
                {"odd": True, "wide": wide},
            ):
                made = RoundedInputs.pack(held, **settings, **more)
                for count in (1, 5):
                    judged(made, x[:count])


@pytest.mark.parametrize("block", [16, 32, 64, 128, 0])
@pytest.mark.parametrize("odd", [False, True])
def test_sums_are_those_of_integers_to_the_bit(block, odd):
    """Steps, scales and offsets are powers of two or whole, so a float32 holds every sum."""
    rows, columns, generator = 35, 256, torch.Generator().manual_seed(block)
    for bits in range(2, 9):
        for inputs in range(2, 9):
            top = int(largest(inputs)) + odd
            whole = torch.randint(-top, top + (not odd), (64, columns), generator=generator)
            wanted = 2 * whole + 1 if odd else whole
            starts = torch.arange(0, columns, block or columns)
            whole[:, starts] = top - odd  # each block has its largest code, and so its step
            wanted[:, starts] = 2 * top - 1 if odd else top
            own = codes_of(rows, columns, bits, seed=bits)
            scales = 2.0 ** torch.arange(-2, rows * 2 - 2).remainder(5).view(rows, 2)
            held = IntegerGroups.pack(own, scales, bits=bits, group_size=128)
            made = RoundedInputs.pack(held, bits=inputs, block=block, odd=odd)
            exact = (own - (1 << (bits - 1))) * (scales * 4).long().repeat_interleave(128, 1)
            for count in (1, 2, 5, 64):
                found = made.multiply(wanted[:count].float() / 2)
                assert torch.equal((8 * found).long(), wanted[:count] @ exact.T), (bits, inputs)
                assert torch.equal(found * 8, (found * 8).round())


@pytest.mark.parametrize("inputs", [4, 8])
def test_any_number_of_tokens_meets_codes(inputs):
    held = groups_of(70, 512, 4, 128)
    order = random(512, seed=9).argsort()
    made = RoundedInputs.pack(held, bits=inputs, block=32, wide=128, order=order)
    x = random(max(MANY), 512, seed=4)
    for count in MANY:
        judged(made, x[:count])
    assert torch.equal(made.multiply(x), made.multiply(x[None])[0])


def test_inputs_rounded_otherwise_are_not_taken_for_those_before():
    """Rooms of a thread keep what was rounded last; the same inputs come with other settings."""
    held, x = groups_of(40, 128, 4, 64), random(2, 128)
    ways = [{"bits": 4}, {"bits": 4, "reach": 0.5}, {"bits": 5}, {"bits": 4, "block": 32}]
    ways += [{"bits": 4, "block": 32, "wide": 32}, {"bits": 4, "odd": True}, {"bits": 16}]
    for settings in ways:
        if settings["bits"] < 16:
            judged(RoundedInputs.pack(held, **settings), x)
        near(held.multiply(x), x.double() @ held.dense().double().T, 6e-5)


def test_rows_of_two_widths_are_multiplied_as_codes():
    mask = random(50, seed=5) > 0
    fine, coarse = groups_of(int(mask.sum()), 160, 5, 32), groups_of(int((~mask).sum()), 160, 4, 32)
    made = RoundedInputs.pack(Rows.pack(mask, fine, coarse), bits=6, block=32)
    for count in (1, 4, 33):
        judged(made, random(count, 160, seed=count))


@pytest.mark.parametrize("bits", range(1, 7))
def test_sums_of_signs_are_integers_with_a_middle(bits):
    """Odd numbers over 2**bits are codes less half of the largest, over 2**(bits - 1)."""
    table = (2 * torch.arange(1 << bits) + 1 - (1 << bits)) / (1 << bits)
    scales = random(33, 2, seed=2)
    held = TableCodes.pack(codes_of(33, 256, bits), table, scales, 128)
    assert torch.equal(held.matrix().dense(), held.dense())
    assert held.matrix().structure.middle == ((1 << bits) - 1) / 2
    for inputs in (3, 8):
        for count in (1, 7):
            judged(RoundedInputs.pack(held, bits=inputs, odd=True), random(count, 256, seed=4))


def test_what_has_no_codes_meets_the_rounded_numbers():
    x = random(5, 96, seed=4)
    weight = Dense.pack(random(20, 96), torch.float32)
    for held in (weight, Sum.of(a=weight, b=groups_of(20, 96, 4, 32, "none"))):
        judged(RoundedInputs.pack(held, bits=4, block=32), x)


def test_turned_inputs_are_rounded_as_those_of_torch():
    """Matrices of signs turn whole numbers into whole numbers, so that no order of sums matters."""
    signs = [torch.where(random(size, size, seed=size) > 0, 1.0, -1.0) for size in (4, 8)]
    held = groups_of(40, 64, 4, 32)
    x = (8 * random(9, 64, seed=4)).round()
    for bits in (4, 16):
        made = RoundedInputs.pack(held, tuple(signs), bits=bits, order=random(64).argsort())
        near(made.multiply(x), made.seen(x).double() @ held.dense().double().T, 6e-5)
        for count in (1, 9):
            if bits < 16:
                judged(made, x[:count])


@pytest.mark.parametrize("held", [groups_of(40, 128, 4, 32), Dense.pack(random(40, 128))])
def test_inputs_are_divided_before_they_are_put_in_order_and_rounded(held):
    divisors = random(128, seed=2).abs() + 0.5
    x = random(70, 128, seed=4)
    for order in (None, random(128, seed=9).argsort()):
        made = RoundedInputs.pack(held, bits=8, order=order, divisors=divisors)
        for count in (1, 5, 64, 70):
            judged(made, x[:count])
        made.divisors = 2 * made.divisors  # its memory is of the divisors of before
        judged(made, x[:1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_stays_with_its_token(value):
    made = RoundedInputs.pack(groups_of(20, 64, 4, 32), bits=4, block=32)
    x = random(3, 64)
    x[1, 40] = value
    found = made.multiply(x)
    assert not found[1].isfinite().any()
    assert torch.equal(found[::2], made.multiply(x[::2]))
    assert made.multiply(torch.zeros(1, 64)).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("method", "bits"),
    [
        (Comet(4.75), 4),
        (Comet(8.75, wide=1.0, block=64), 4),
        (Flatquant(4.5, inputs=8, steps=0), 8),
        (Flatquant(8.5, inputs=8, steps=0), 8),
        (ApInt(4.25), 8),
        (ApInt(3.75, inputs=4), 4),
    ],
)
def test_methods_that_round_inputs_are_multiplied_as_codes(method, bits):
    """W4A8 and W8A8 are settings of them; turning inputs has sums of another order than torch."""
    held = method.fit(random(96, 128, seed=7), statistics_of(inputs_of(128)))
    assert held.input_bits == bits
    settings = {"bits": bits, "block": held.block, "wide": held.wide, "odd": held.odd}
    plain = RoundedInputs.pack(held.held, reach=float(held.reach), order=held.order, **settings)
    x = random(16, 128, seed=3)
    for count in (1, 16):
        judged(plain, x[:count])
    near(held.multiply(x), held.seen(x).double() @ held.held.dense().double().T, 1e-2)
