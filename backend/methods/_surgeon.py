"""The column sweep that GPTQ and SparseGPT share: change a column, mend the rest.

With U the upper Cholesky factor of the inverse Hessian, changing column j of a weight by e
times U[j, j] is best mended by taking e * U[j, j + 1:] from the columns after it (optimal brain
surgeon; Frantar and Alistarh, arXiv 2208.11580). The columns are halved again and again: a
left half is treated, then mends the right half in one matrix product, so that nearly all of
the work is products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backend.later import torch

if TYPE_CHECKING:
    from torch import Tensor

LEAF = 16
"""Columns mended one by one; fewer would make the products too thin to pay."""


def sweep(
    columns: Tensor, factor: Tensor, treat: Callable[[int, Tensor], Tensor], leaf: int = LEAF
) -> None:
    """Treat each column in turn and spread its error over those after it.

    When a column whose place is a multiple of a power of two is treated, all columns up to the
    next such multiple have been mended for every column before it.

    Args:
        columns: the weight transposed, [columns, rows], float32; becomes, column by column,
            what was treated: the weight as mended for all columns before.
        factor: upper Cholesky factor of the inverse Hessian, [columns, columns].
        treat: from a column's place and values [rows], after mending, to its new values.
        leaf: columns mended one by one.
    """
    diagonal = factor.diagonal().tolist()
    errors = torch.empty_like(columns)  # each divided by its column's place in the diagonal
    values, losses = columns.unbind(), errors.unbind()

    def treat_leaf(start: int, stop: int) -> None:
        for place in range(start, stop):
            error = torch.sub(values[place], treat(place, values[place]), out=losses[place])
            error.div_(diagonal[place])
            if place + 1 < stop:
                columns[place + 1 : stop].addr_(factor[place, place + 1 : stop], error, alpha=-1)

    def treat_range(start: int, stop: int) -> None:
        count = stop - start
        if count <= leaf:
            treat_leaf(start, stop)
            return
        middle = start + (1 << (count - 1).bit_length() - 1)
        treat_range(start, middle)
        columns[middle:stop].addmm_(
            factor[start:middle, middle:stop].T, errors[start:middle], alpha=-1
        )
        treat_range(middle, stop)

    treat_range(0, columns.shape[0])


def columns_of(weight: Tensor, order: Tensor | None = None) -> Tensor:
    """A copy of a weight [rows, columns], transposed, its columns in `order`."""
    columns = weight.T.clone(memory_format=torch.contiguous_format)
    return columns if order is None else columns.index_select(0, order)
