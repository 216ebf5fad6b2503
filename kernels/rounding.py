"""Products of inputs that are divided, put in order, turned and rounded, token by token.

Where the matrix is held as codes, theirs are multiplied with those of the inputs, as integers.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels import products
from kernels.layout import Address, Matrix, Number
from kernels.products import Product, ProductStructure


class Rounding(ctypes.Structure):
    """`Rounding` of kernels/cpu/packed.h.

    Codes of `bits` bits, 16 for none, in blocks of `block` columns; those of the first `wide`
    columns have 8. The largest code stands for `reach` of a block's largest input. `odd` codes are
    odd numbers of half steps.
    """

    _fields_ = (
        ("bits", Number),
        ("block", Number),
        ("wide", Number),
        ("reach", ctypes.c_float),
        ("odd", ctypes.c_int32),
    )


class _Turns(ctypes.Structure):
    _fields_ = (("left", Address), ("right", Address), ("a", Number), ("b", Number))


class _SeenInputs(ctypes.Structure):
    _fields_ = (
        ("divisors", Address),
        ("places", Address),
        ("places_bits", Number),
        ("turns", _Turns),
        ("rounding", Rounding),
        ("matrix", Address),
        ("held", ProductStructure),
    )


def product(
    how: Rounding,
    matrix: Matrix | None,
    held: Product | None,
    places: Tensor | None = None,
    turns: tuple[Tensor, Tensor] | None = None,
    divisors: Tensor | None = None,
) -> Product | None:
    """A product of inputs that are rounded first; None where that of what is held is None.

    Args:
        how: inputs are rounded.
        matrix: of what they are by then, None where only its product is known.
        held: that product.
        places: old places of the columns, [columns], int16 or int32; None where they stay.
        turns: P1 [a, a] and P2 [b, b], by which each run x of a * b of them, as [a, b], becomes
            P1^T x P2; None for none.
        divisors: of the columns as they come, [columns]; None for none.
    """
    if held is None:
        return None
    structure = _SeenInputs(rounding=how, held=held.structure)
    structure.matrix = None if matrix is None else matrix.address
    if places is not None:
        structure.places, structure.places_bits = places.data_ptr(), 8 * places.element_size()
    if turns is not None:
        turns = tuple(one.to(torch.float32).T.contiguous() for one in turns)
        left, right = turns
        structure.turns = _Turns(left.data_ptr(), right.data_ptr(), len(left), len(right))
    if divisors is not None:
        divisors = divisors.to(torch.float32).contiguous()
        structure.divisors = divisors.data_ptr()
    kept = matrix, held, places, turns, divisors
    return products.made("multiply_seen", structure, held.rows, held.columns, *kept)
