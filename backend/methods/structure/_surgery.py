"""Taking columns that belong together out of a matrix, the others mended by the inverse Hessian.

Structured optimal brain surgeon as ZipLM has it (Kurtic, Frantar and Alistarh, arXiv 2302.04089),
and the choice of how many go where by dynamic programming over what that costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.later import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


def removed(weight: Tensor, hessian: Tensor, width: int) -> tuple[list[int], list[float]]:
    """In what order units go, one after another, each the one that is missed least by then.

    A unit S of columns is missed by tr(W_S (H^-1_SS)^-1 W_S^T); before the next is looked for, the
    others take over W_S (H^-1_SS)^-1 H^-1_S:, and the inverse forgets S by elimination.

    Args:
        weight: that reads the units, [outputs, units * width].
        hessian: mean of x x^T over what it reads, definite.
        width: columns of a unit.

    Returns:
        All units, the first to go first; and the squared error of the outputs when as many of them
        are gone as the place says, as a share of the outputs' own square.
    """
    weight, hessian = weight.to(torch.float64, copy=True), hessian.to(torch.float64)
    units = weight.shape[1] // width
    whole = float(((weight @ hessian) * weight).sum().clamp(min=1e-300))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    there = torch.ones(units, dtype=torch.bool, device=weight.device)
    one = torch.eye(width, dtype=torch.float64, device=weight.device)
    order, losses = [], [0.0]
    for _ in range(units):
        corners = inverse.view(units, width, units, width).diagonal(dim1=0, dim2=2)
        corners = corners.permute(2, 0, 1).where(there[:, None, None], one)
        turned = corners.reciprocal() if width == 1 else torch.linalg.inv(corners)
        missed = _missed(weight, turned)
        unit = int(missed.masked_fill(~there, torch.inf).argmin())
        own = slice(unit * width, (unit + 1) * width)
        taken = turned[unit] @ inverse[own]
        weight.addmm_(weight[:, own].clone(), taken, alpha=-1)
        inverse.addmm_(inverse[:, own].clone(), taken, alpha=-1)
        weight[:, own] = 0.0
        inverse[own], inverse[:, own] = 0.0, 0.0
        there[unit] = False
        order.append(unit)
        losses.append(losses[-1] + float(missed[unit].clamp(min=0)) / whole)
    return order, losses


def _missed(weight: Tensor, turned: Tensor) -> Tensor:
    """How much each unit is missed [units]: tr(W_S T_S W_S^T), by T [units, width, width]."""
    if turned.shape[1] == 1:  # as so many products of one number each they would take 50 times it
        return weight.square().sum(0) * turned.flatten()
    parts = weight.view(len(weight), len(turned), -1).transpose(0, 1)  # [units, outputs, width]
    return (parts @ turned).mul_(parts).sum((1, 2))


def mended(weight: Tensor, hessian: Tensor, columns: Tensor) -> Tensor:
    """A weight [outputs, columns] that reads some columns alone, nearest to what read all.

    What removing the others one by one comes to, whatever the order: W H_:K (H_KK)^-1.

    Args:
        weight: that reads all.
        hessian: mean of x x^T over what it reads, definite.
        columns: true for those that stay.

    Returns:
        Zeros in the columns that go, float32.
    """
    hessian = hessian.to(torch.float64)
    factor = torch.linalg.cholesky(hessian[columns][:, columns])
    wanted = hessian[columns] @ weight.to(torch.float64).T
    found = torch.zeros_like(weight)
    found[:, columns] = torch.cholesky_solve(wanted, factor).T.to(weight.dtype)
    return found


class Profiles:
    """The best choice of one level for each group under any total cost.

    Costs are divided into `steps` parts of the dearest choice, and choices kept for every total.
    """

    def __init__(
        self, errors: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], steps: int
    ) -> None:
        """Go through groups one by one.

        Args:
            errors: of each level of each group; they are added up.
            costs: beside them.
            steps: parts of the dearest choice's cost.
        """
        self._unit = sum(map(max, costs)) / steps
        self._taken: list[Tensor] = []
        self._parts = [[round(cost / self._unit) for cost in each] for each in costs]
        top = steps + len(costs)
        best = torch.zeros(top + 1, dtype=torch.float64)
        for own, parts in zip(errors, self._parts, strict=True):
            tried = torch.full((len(parts), top + 1), torch.inf, dtype=torch.float64)
            for level, (error, part) in enumerate(zip(own, parts, strict=True)):
                tried[level, part:] = best[: top + 1 - part] + error
            best, taken = tried.min(0)
            self._taken.append(taken)
        self._best = best

    def under(self, cost: float) -> Iterator[list[int]]:
        """The best levels at a total cost and at each smaller one, dearest first.

        Rounded costs may add up to a little more or less than the total; whoever asks has to look.
        """
        top = min(len(self._best) - 1, int(cost / self._unit) + len(self._parts))
        for total in range(top, -1, -1):
            if not bool(self._best[total].isfinite()):
                return
            yield self._traced(total)

    def _traced(self, total: int) -> list[int]:
        levels = []
        for taken, parts in zip(reversed(self._taken), reversed(self._parts), strict=True):
            levels.append(int(taken[total]))
            total -= parts[levels[-1]]
        return levels[::-1]
