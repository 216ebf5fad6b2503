"""What factorisers share: a budget as a rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.errors import OutOfReachError
from backend.later import torch
from backend.methods.base import LayerMethod, Outline, Stage, setting

if TYPE_CHECKING:
    from torch import Tensor

    from backend.formats import Format


@dataclass(frozen=True)
class Factoriser(LayerMethod):
    """A method that holds a matrix as two thin factors."""

    stage = Stage.FACTOR
    yields = ("low-rank", "dense")

    bits: float = setting(
        8.0, "Bits per number of the matrix, both factors counted.", low=0.5, high=16.0
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Two factors, or the matrix itself where nothing is saved."""
        if self.bits >= 16:
            return Outline(leaves=((rows, columns),))
        rank = rank_of(rows, columns, self.bits)
        return Outline(leaves=((rows, rank), (rank, columns)))


def rank_of(rows: int, columns: int, bits: float) -> int:
    """The rank whose two bfloat16 factors take `bits` bits per number of [rows, columns].

    Raises:
        OutOfReachError: not even rank one fits.
    """
    rank = int(bits * rows * columns / 16 // (rows + columns))
    if rank < 1:
        least = 16 * (rows + columns) / (rows * columns)
        raise OutOfReachError(
            f"Factors of a matrix {rows} x {columns} take {least:.2f} bits per number or more, "
            f"not {bits:g}."
        )
    return rank


def hold(weight: Tensor, left: Tensor, right: Tensor, bits: float) -> Format:
    """The factors, or the weight itself where it takes no more than they would."""
    if bits >= 16:
        return formats.Dense.pack(weight)
    return formats.LowRank.pack(left, right)


EXACT = 1024  # outputs up to which all axes are found at once
SPARE, ROUNDS = 24, 8  # of the search for a few axes among many


def output_axes(weight: Tensor, hessian: Tensor, rank: int) -> Tensor:
    """Axes [rows, rank] along which the outputs of a weight [rows, columns] vary most.

    They are the leading eigenvectors of W H W^T, with H the second moment of the inputs: no
    projection of that rank keeps more of the outputs. A few among many are found by subspace
    iteration, which never makes that product.
    """
    rows = weight.shape[0]
    if rows <= EXACT or 4 * rank > rows:
        outputs = (weight @ hessian @ weight.T).to(torch.float64)
        return torch.linalg.eigh(outputs).eigenvectors[:, -rank:].to(weight.dtype)
    draw = torch.Generator().manual_seed(0)
    axes = torch.randn(rows, rank + SPARE, generator=draw, dtype=weight.dtype).to(weight.device)
    for _ in range(ROUNDS):
        axes = torch.linalg.qr(weight @ (hessian @ (weight.T @ axes))).Q
    inner = weight.T @ axes
    small = torch.linalg.eigh((inner.T @ (hessian @ inner)).to(torch.float64)).eigenvectors
    return axes @ small[:, -rank:].to(weight.dtype)


def leading(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors [rows, rank] and [rank, columns] of the nearest product of that rank."""
    if min(matrix.shape) <= EXACT or 4 * rank > min(matrix.shape):
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        left, values, right = left[:, :rank], values[:rank], right[:rank]
    else:
        draw = torch.Generator().manual_seed(0)
        axes = torch.randn(matrix.shape[1], rank + SPARE, generator=draw, dtype=matrix.dtype)
        axes = axes.to(matrix.device)  # drawn on the processor: the same wherever it is used
        for _ in range(ROUNDS // 2):
            axes = torch.linalg.qr(matrix.T @ (matrix @ axes)).Q
        left, values, small = torch.linalg.svd(matrix @ axes, full_matrices=False)
        left, values, right = left[:, :rank], values[:rank], (small @ axes.T)[:rank]
    root = values.sqrt()
    return left * root, root[:, None] * right
