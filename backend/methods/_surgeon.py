"""The column sweep that GPTQ and SparseGPT share: change a column, mend the rest.

With U the upper Cholesky factor of the inverse Hessian, changing column j of a weight by e
times U[j, j] is best mended by taking e * U[j, j + 1:] from the columns after it (optimal brain
surgeon; Frantar and Alistarh, arXiv 2208.11580). Columns go in blocks, so that most of the
work is one matrix product a block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backend.later import torch

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 128


def sweep(
    columns: Tensor, factor: Tensor, treat: Callable[[int, Tensor], Tensor], block: int = BLOCK
) -> Tensor:
    """Treat each column in turn and spread its error over those after it.

    Args:
        columns: the weight transposed, [columns, rows], float32; overwritten by the result.
        factor: upper Cholesky factor of the inverse Hessian, [columns, columns].
        treat: from a column's place and values [rows], after mending, to its new values.
        block: columns mended one by one before the rest of the matrix is.

    Returns:
        `columns`, every column treated.
    """
    count = columns.shape[0]
    for start in range(0, count, block):
        stop = min(start + block, count)
        part, corner = columns[start:stop], factor[start:stop, start:stop]
        errors = torch.empty_like(part)
        for offset in range(stop - start):
            values = part[offset]
            treated = treat(start + offset, values)
            error = torch.sub(values, treated, out=errors[offset]).div_(corner[offset, offset])
            values.copy_(treated)
            if offset + 1 < stop - start:
                part[offset + 1 :].addr_(corner[offset, offset + 1 :], error, alpha=-1)
        if stop < count:
            columns[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return columns
