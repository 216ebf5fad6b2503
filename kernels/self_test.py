"""Whether a loaded extension multiplies as torch does; asked once, before anything relies on it.

A compiler or a processor that errs would falsify every figure in silence. Small matrices go
through decoding by eights and one by one, and through products, by the loops that run here.
It proves no format whole: the tests do that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import bitmask, bitpack, packed, rounding, sparse24, window, wna16_mm

ROWS, COLUMNS, GROUP = 7, 43, 16
IN_FOURS = 36  # columns of two of every four; half of a byte's positions lie behind a row's end
TOLERANCE = 1e-4
"""Of the largest product; activations of 16 bits stay below a third of it."""


def disagreement() -> str:
    """What the extension gets wrong, in one sentence; empty if nothing."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(ROWS, COLUMNS, generator=generator)
    several = torch.randn(3, COLUMNS, generator=generator)
    examples = {
        "float32": (packed.dense(numbers), numbers),
        "bfloat16": (packed.dense(numbers.to(torch.bfloat16)), numbers.to(torch.bfloat16)),
        "integers of 3 bits": _integers(3, generator),
        "integers of 4 bits": _integers(4, generator),
        "integers of 8 bits": _integers(8, generator),
        "a codebook": _codebook(generator),
        "a bitmask": _bitmask(numbers),
        "bfloat16 behind a bitmask": _bitmask(numbers.to(torch.bfloat16)),
        "two of four": _fours(numbers[:, :IN_FOURS].to(torch.bfloat16)),
        "exponents of 4 bits": _window(numbers.to(torch.bfloat16)),
    }
    for name, (matrix, dense) in examples.items():
        if matrix is None:
            return f"It cannot read {name}."
        width = dense.shape[1]
        for x in (several[:, :width], several[:1, :width]):  # one alone may go another way
            if error := _error(matrix.multiply(x), x, dense):
                return f"Its product by {name} is off by {error:.1e} of the largest."
    held, dense = examples["integers of 4 bits"]
    whole = torch.randint(-7, 8, (5, COLUMNS), generator=generator).to(torch.float32)
    whole[:, ::GROUP] = 7  # codes of 4 bits with a step of one: rounding changes nothing
    product = rounding.product(rounding.Rounding(4, GROUP, 0, 1.0, 0), held, held.product())
    for x in (whole, whole[:1]):
        if error := _error(product(x), x, dense):
            return f"Its product of rounded inputs is off by {error:.1e} of the largest."
    if error := _error(packed.dense(numbers).product()(several[0])[None], several[:1], numbers):
        return f"Its product of a decode step is off by {error:.1e} of the largest."
    return ""


def _error(found: Tensor, x: Tensor, dense: Tensor) -> float:
    """How far off, as a share of the largest; 0 within the tolerance."""
    wanted = x.double() @ dense.double().T
    gap = float((found.double() - wanted).abs().max() / wanted.abs().max())
    return 0.0 if gap <= TOLERANCE else gap  # what is not a number is off


def _integers(bits: int, generator: torch.Generator) -> tuple[packed.Matrix | None, Tensor]:
    codes = torch.randint(0, 1 << bits, (ROWS, COLUMNS), generator=generator)
    scales, offsets = torch.rand(2, ROWS, -(-COLUMNS // GROUP), generator=generator)
    matrix = packed.integers(
        bitpack.pack(codes, bits), COLUMNS, packed.dense(scales),
        middle=float(1 << (bits - 1)), group_size=GROUP, offsets=packed.dense(offsets),
    )  # fmt: skip
    return matrix, wna16_mm.dequantise(codes, scales, offsets, bits, GROUP)


def _codebook(generator: torch.Generator) -> tuple[packed.Matrix | None, Tensor]:
    codes = torch.randint(0, 16, (ROWS, COLUMNS), generator=generator)
    tables = torch.randn(ROWS, 16, generator=generator).to(torch.bfloat16)
    matrix = packed.codebook(bitpack.pack(codes, 4), COLUMNS, tables)
    return matrix, tables.gather(1, codes)


def _bitmask(numbers: Tensor) -> tuple[packed.Matrix | None, Tensor]:
    pattern, values = bitmask.compact(numbers, numbers > 0)
    return packed.bitmask(pattern, COLUMNS, packed.dense(values[None])), numbers.clamp(min=0)


def _fours(numbers: Tensor) -> tuple[packed.Matrix | None, Tensor]:
    places = numbers.view(ROWS, -1, 4).abs().argsort(-1)
    kept = (places < 2).view(numbers.shape)
    values, positions = sparse24.compact(numbers, kept)
    return packed.two_of_four(positions, packed.dense(values)), numbers * kept


def _window(numbers: Tensor) -> tuple[packed.Matrix | None, Tensor]:
    numbers = numbers.clone()
    numbers[:, 1] = 2.0 ** -torch.arange(20, 20 + ROWS)  # the table is full before it has eight's
    numbers[1, 2] = 8
    return window.encode(numbers).matrix(), numbers
