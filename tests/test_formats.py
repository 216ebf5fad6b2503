"""Formats: the bytes table of the measurement protocol, round trips, products."""

import json

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
    HeldEmbedding,
    HeldLinear,
    IntegerGroups,
    LowRank,
    Monarch,
    Outliers,
    RoundedInputs,
    Rows,
    ScalarCodebook,
    SharedRows,
    SignBlock,
    Sparse24,
    Sum,
    TableCodes,
    TensorTrain,
    Transposed,
    VectorCodebook,
    WindowCoded,
    from_header,
)
from backend.formats.base import by_dense
from kernels import bfloat16, extension

ROWS, COLUMNS = 128, 256
EVERY = torch.arange(320).repeat(100, 1)
ORDER = torch.randperm(COLUMNS, generator=torch.Generator().manual_seed(2))
BYTE_INDICES = torch.arange(ROWS * COLUMNS // 8).view(ROWS, -1) % 256


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(bits, group_size, kind="float", rows=ROWS, columns=COLUMNS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    groups = -(-columns // group_size)
    codes = torch.randint(0, 2**bits, (rows, columns), generator=generator)
    scales = torch.rand(rows, groups, generator=generator) + 0.1
    extra = {}
    if kind == "float":
        extra["offsets"] = normal(rows, groups)
    if kind == "zero-point":
        extra["zero_points"] = torch.randint(0, 2**bits, (rows, groups), generator=generator)
    return IntegerGroups.pack(codes, scales, bits=bits, group_size=group_size, **extra)


def two_of_four(rows, columns, seed=0):
    order = torch.rand(rows, columns // 4, 4, generator=torch.Generator().manual_seed(seed))
    return (order.argsort(-1) < 2).view(rows, columns)


def groups_of_16(rows, columns, seed=0):
    """Some groups kept, none of them in the first row, as codes with a zero point a group."""
    mask = normal(rows, -(-columns // 16), seed=seed) > 0
    mask[0] = False
    kept = int(mask.sum())
    values = integers(4, 16, "zero-point", rows=1, columns=16 * kept, seed=seed)
    return GroupSparse.pack(mask, values, columns)


def columns_apart(rows, columns):
    """A third of the columns as codes, the others as signs with a number a column."""
    apart = torch.arange(columns) % 3 == 0
    others = int((~apart).sum())
    signs = normal(1, rows, others) > 0, normal(1, rows, 1), normal(rows, 1, seed=1)
    coarse = BinaryCodes.pack(*signs, others)
    fine = integers(4, columns, "zero-point", rows=rows, columns=columns - others)
    return Columns.pack(apart, fine, coarse, normal(others, seed=2))


def example(name):
    weight = normal(ROWS, COLUMNS)
    mask = normal(ROWS, COLUMNS, seed=1) > 0.3
    some_rows = torch.arange(ROWS) % 3 == 0
    fine, coarse = int(some_rows.sum()), ROWS - int(some_rows.sum())
    return {
        "dense": lambda: Dense.pack(weight),
        "int4 with offsets": lambda: integers(4, 128),
        "int8 by row": lambda: integers(8, COLUMNS, "none"),
        "int3 with zero points": lambda: integers(3, 64, "zero-point"),
        "int5 with a short last group": lambda: integers(5, 96),
        "two-level scales": lambda: IntegerGroups.pack(
            torch.randint(0, 8, (ROWS, COLUMNS)),
            integers(6, 8, "float", columns=COLUMNS // 16),
            bits=3,
            group_size=16,
        ),
        "binary codes": lambda: BinaryCodes.pack(
            normal(3, ROWS, COLUMNS) > 0, normal(3, ROWS, 3), normal(ROWS, 3), 96
        ),
        "bitmask": lambda: BitmaskSparse.pack(weight, mask),
        "columns": lambda: columns_apart(ROWS, COLUMNS),
        "groups": lambda: groups_of_16(ROWS, COLUMNS),
        "2:4": lambda: Sparse24.pack(weight, two_of_four(ROWS, COLUMNS)),
        "outliers": lambda: Outliers.pack(weight, mask),
        "low rank": lambda: LowRank.pack(normal(ROWS, 8), normal(8, COLUMNS)),
        "monarch": lambda: Monarch.pack(normal(4, 32, 8, 3), normal(8, 4, 3, 32)),
        "tensor train": lambda: TensorTrain.pack(
            [normal(1, 8, 4, 5), normal(5, 4, 8, 6), normal(6, 4, 8, 1)]
        ),
        "sum": lambda: Sum.of(
            base=integers(2, 64), correction=LowRank.pack(normal(ROWS, 4), normal(4, COLUMNS))
        ),
        "rows": lambda: Rows.pack(
            some_rows, integers(4, 64, rows=fine), integers(3, 64, rows=coarse)
        ),
        "codebook": lambda: VectorCodebook.pack(
            torch.randint(0, 256, (ROWS, COLUMNS // 4)), normal(256, 4)
        ),
        "scalar codebook": lambda: ScalarCodebook.pack(
            torch.randint(0, 8, (ROWS, COLUMNS)), normal(ROWS, 8)
        ),
        "float codes": lambda: FloatCodes.pack(
            torch.randint(0, 16, (ROWS, COLUMNS)),
            normal(ROWS, 3).abs(),
            exponent_bits=2,
            mantissa_bits=1,
            group_size=96,
        ),
        "table codes": lambda: TableCodes.pack(
            torch.randint(0, 8, (ROWS, COLUMNS)), normal(8), normal(ROWS, 3), 96
        ),
        "transposed": lambda: Transposed.of(integers(3, 64, rows=COLUMNS, columns=ROWS)),
        "entropy": lambda: EntropyCoded.pack(weight.to(torch.bfloat16)),
        "window": lambda: WindowCoded.pack(weight.to(torch.bfloat16)),
        "signs": lambda: SignBlock.pack(mask, normal(ROWS, 2), normal(2, COLUMNS)),
        "turned inputs": lambda: RoundedInputs.pack(
            integers(4, 64), (normal(8, 8), normal(16, 16)), bits=16, order=ORDER
        ),
        "divided inputs": lambda: RoundedInputs.pack(
            integers(4, 64), bits=16, order=ORDER, divisors=1 + normal(COLUMNS).abs()
        ),
        "shared rows": lambda: SharedRows.pack(weight.bfloat16(), some_rows, normal(COLUMNS)),
    }[name]()


NAMES = [
    "dense", "int4 with offsets", "int8 by row", "int3 with zero points",
    "int5 with a short last group", "two-level scales", "bitmask", "2:4", "outliers",
    "low rank", "sum", "rows", "codebook", "scalar codebook", "float codes", "transposed",
    "entropy", "signs", "shared rows", "binary codes",
    "table codes", "groups", "columns", "monarch", "tensor train", "turned inputs",
    "divided inputs",
]  # fmt: skip


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


def _first(tensor, value):
    tensor.view(-1)[0] = value


DAMAGES = {
    "bitmask": lambda held: _first(held.mask, int(held.mask.view(-1)[0]) ^ 1),
    "groups": lambda held: _first(held.mask, int(held.mask.view(-1)[0]) ^ 1),
    "columns": lambda held: _first(held.mask, int(held.mask.view(-1)[0]) ^ 1),
    "rows": lambda held: _first(held.mask, int(held.mask.view(-1)[0]) ^ 1),
    "fours": lambda held: _first(held.positions, 0),
    "outlier positions": lambda held: _first(held.positions, 60_000),
    "outlier ends": lambda held: _first(held.offsets, -1),
    "entropy start": lambda held: _first(held.bases, 1 << 40),
    "entropy length": lambda held: _first(held.lengths, 30),
    "entropy code": lambda held: held.lengths.fill_(1),
    "window row": lambda held: held.apart_rows[-1:].fill_(40),
    "window order": lambda held: held.apart_rows[-1:].zero_(),
    "window column": lambda held: _first(held.apart_columns, -1),
    "window table": lambda held: held.table.fill_(255),
    "inside": lambda held: _first(held.one.mask, int(held.one.mask.view(-1)[0]) ^ 1),
}


@pytest.mark.security
@pytest.mark.parametrize("name", NAMES)
def test_parts_of_another_shape_than_the_whole_are_noticed(name):
    """A header may say anything: as many numbers as the mask marks, in rows of its own."""
    held = example(name)
    held.check()
    for part, right in held.inner().items():
        for more in ((1, 0), (0, 1)):
            rows, columns = right.rows + more[0], right.columns + more[1]
            setattr(held, part, Dense.pack(torch.ones(rows, columns)))
            with pytest.raises(ValueError, match=r"do not fit|mask marks"):
                held.check()
        setattr(held, part, right)
    held.check()


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ((), "rows", 0),
        ((), "columns", -8),
        ((), "rows", True),
        (("settings",), "group_size", 0),
        (("settings",), "group_size", 1 << 64),
        (("settings",), "block", 1 << 64),
        (("inner", "scales"), "columns", "4"),
    ],
)
def test_a_header_without_numbers_is_refused_in_words(place, name, value):
    codes, scales = torch.zeros(4, 64, dtype=torch.uint8), torch.ones(4, 2)
    header = IntegerGroups.pack(codes, scales, bits=4, group_size=32).header()
    part = header
    for step in place:
        part = part[step]
    part[name] = value
    with pytest.raises(ValueError, match=f"A header says {value!r} .*, where one or more"):
        from_header(header)


@pytest.mark.security
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_would_lead_a_product_astray_is_noticed(damage):
    weight = normal(40, 24, seed=1)
    mask = weight > 1
    held = {
        "bitmask": BitmaskSparse.pack(weight * mask),
        "groups": groups_of_16(40, 24),
        "columns": columns_apart(40, 24),
        "rows": Rows.pack(
            mask[:, 0], Dense.pack(weight[mask[:, 0]]), Dense.pack(weight[~mask[:, 0]])
        ),
        "fours": Sparse24.pack(weight, two_of_four(40, 24)),
        "outlier": Outliers.pack(weight, mask),
        "entropy": EntropyCoded.pack(weight.to(torch.bfloat16)),
        "window": WindowCoded.pack((weight * 1e9**weight).to(torch.bfloat16)),
        "inside": Sum.of(one=BitmaskSparse.pack(weight * mask), two=Dense.pack(weight)),
    }[damage.split()[0]]
    held.check()
    DAMAGES[damage](held)
    with pytest.raises(ValueError, match=r"mask marks|do not fit|cannot be read"):
        held.check()
