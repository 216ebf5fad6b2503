"""Weighted k-means of the numbers in each row, all rows at once.

Numbers are sorted once. From then on a cluster is a stretch of a row, its mean the difference of
two running sums, and where it ends a binary search: a round costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.later import torch

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 30


def tables(values: Tensor, weights: Tensor, count: int) -> Tensor:
    """The `count` values that stand best for each row, [rows, count], rising.

    Lloyd's rounds from three starts, of which each row keeps the best: evenly over the range,
    evenly over the weights, and at the density that is best for many values, which follows the
    cube root of the weights' density (Panter and Dite, 1951).

    Args:
        values: [rows, columns].
        weights: how much an error counts, [rows, columns], not negative.
        count: values of a table.
    """
    values, order = values.to(torch.float64).sort(dim=1)
    weights = weights.to(torch.float64).gather(1, order)
    weights = weights + 1e-6 * weights.mean(1, keepdim=True) + 1e-30
    sums = _Sums(values, weights)
    best, least = None, None
    for start in _starts(values, weights, count):
        found = _lloyd(values, sums, start)
        loss = sums.loss(_ends(values, found), found)
        if best is None or least is None:
            best, least = found, loss
            continue
        better = loss < least
        best = torch.where(better.unsqueeze(1), found, best)
        least = torch.where(better, loss, least)
    return best.to(torch.float32)


def codes(values: Tensor, table: Tensor) -> Tensor:
    """The place of the nearest value in each row's rising table, [rows, columns]."""
    edges = ((table[:, 1:] + table[:, :-1]) / 2).contiguous()
    return torch.searchsorted(edges, values.contiguous())


def _lloyd(values: Tensor, sums: _Sums, table: Tensor) -> Tensor:
    for _ in range(ROUNDS):
        moved = sums.means(_ends(values, table), table)
        if torch.equal(moved, table):
            break
        table = moved
    return table


def _ends(values: Tensor, table: Tensor) -> Tensor:
    """Where in the sorted values the cluster of each table entry ends, [rows, count]."""
    edges = ((table[:, 1:] + table[:, :-1]) / 2).contiguous()
    inner = torch.searchsorted(values, edges)
    last = inner.new_full((values.shape[0], 1), values.shape[1])
    return torch.cat([inner, last], 1)


def _starts(values: Tensor, weights: Tensor, count: int) -> list[Tensor]:
    places = (torch.arange(count, dtype=values.dtype, device=values.device) + 0.5) / count
    low, high = values[:, :1], values[:, -1:]
    gaps = (values[:, 1:] - values[:, :-1]).clamp(min=1e-12 * float(high.abs().max()) + 1e-30)
    density = (weights[:, 1:] / gaps).pow(1 / 3) * gaps
    return [
        low + (high - low) * places,
        _quantiles(values, weights, places),
        _quantiles(values, torch.cat([density[:, :1], density], 1), places),
    ]


def _quantiles(values: Tensor, weights: Tensor, places: Tensor) -> Tensor:
    whole = weights.cumsum(1)
    wanted = (whole[:, -1:] * places).contiguous()
    found = torch.searchsorted(whole, wanted).clamp_(max=values.shape[1] - 1)
    return values.gather(1, found)


class _Sums:
    """Running sums of sorted values, from which any stretch's mean and loss follow."""

    def __init__(self, values: Tensor, weights: Tensor) -> None:
        parts = weights, weights * values, weights * values * values
        self._runs = [torch.nn.functional.pad(part.cumsum(1), (1, 0)) for part in parts]

    def _of(self, ends: Tensor) -> list[Tensor]:
        starts = torch.nn.functional.pad(ends[:, :-1], (1, 0))
        return [run.gather(1, ends) - run.gather(1, starts) for run in self._runs]

    def means(self, ends: Tensor, otherwise: Tensor) -> Tensor:
        """Weighted mean of each stretch; of an empty one, what it was."""
        weight, first, _ = self._of(ends)
        filled = weight > 0
        return torch.where(filled, first / torch.where(filled, weight, 1.0), otherwise)

    def loss(self, ends: Tensor, table: Tensor) -> Tensor:
        """Weighted squared distance of each row's values from its table, [rows]."""
        weight, first, second = self._of(ends)
        return (second - 2 * table * first + weight * table.square()).sum(1)
