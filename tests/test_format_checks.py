"""Formats notice what would lead a product astray: damaged parts, and headers that lie."""

import pytest
import torch

from backend.formats import (
    BitmaskSparse,
    Dense,
    EntropyCoded,
    IntegerGroups,
    Monarch,
    Outliers,
    Rows,
    Sparse24,
    Sum,
    TensorTrain,
    WindowCoded,
    from_header,
)
from tests.format_examples import NAMES, columns_apart, example, groups_of_16, normal, two_of_four


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
@pytest.mark.parametrize(
    ("digits", "columns", "bonds"),
    [([2, -2, -2], [-2, -2, 2], [-3, -3]), ([2, 2, 2], [2, 2, 2], [3.0, 3]), ([0], [8], [])],
)
def test_a_chain_of_cores_has_whole_digits_and_bonds(digits, columns, bonds):
    """The first fits its cores in rows and columns all the same."""
    sizes = [(2, 6), (6, 6), (6, 2)]
    cores = {f"core{k}": Dense.pack(torch.ones(*size)) for k, size in enumerate(sizes)}
    with pytest.raises(ValueError, match="Digits and bonds are whole and 1 or more"):
        TensorTrain(8, 8, row_digits=digits, column_digits=columns, bonds=bonds, **cores)


@pytest.mark.security
@pytest.mark.parametrize(("inputs", "outputs"), [(0, 4), (4, 0), (-4, 4), (-4, -4)])
def test_a_monarch_has_blocks_on_either_side(inputs, outputs):
    left, right = Dense.pack(torch.ones(8, 12)), Dense.pack(torch.ones(48, 2))
    with pytest.raises(ValueError, match="has no"):
        Monarch(8, 8, left, right, inputs=inputs, outputs=outputs)


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
