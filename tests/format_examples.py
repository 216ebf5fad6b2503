"""An example of every format, and the matrices that they hold."""

import torch

from backend.formats import (
    BinaryCodes,
    BitmaskSparse,
    Columns,
    Dense,
    EntropyCoded,
    FloatCodes,
    GroupSparse,
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
)

ROWS, COLUMNS = 128, 256
ORDER = torch.randperm(COLUMNS, generator=torch.Generator().manual_seed(2))


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
