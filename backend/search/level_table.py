"""Every layer at every level: what an allocator chooses from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from backend.errors import OutOfReachError
from backend.search import evopress

if TYPE_CHECKING:
    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format
    from backend.methods.base import LayerMethod
    from backend.models.view import Site, View

STEPS = (-2, -1.5, -1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.5, 2)
"""Levels around the mean budget, in quarters of it."""

FEW, MANY = 512, 4096  # calibration tokens of the two steps of selection

Progress = Callable[[str, int, int], None]


@dataclass
class LevelTable:
    """Formats of each site from the fewest bits to the most."""

    sites: list[Site]
    levels: list[list[Format]]

    @property
    def costs(self) -> list[list[int]]:
        """Bytes of each site at each level."""
        return [[held.nbytes for held in row] for row in self.levels]

    @classmethod
    def build(
        cls,
        view: View,
        statistics: Callable[[int], dict[str, InputStatistics]],
        method: LayerMethod,
        progress: Progress,
    ) -> LevelTable:
        """Compress every site of a model at every level, on the statistics of each block."""
        sites: list[Site] = []
        levels: list[list[Format]] = []
        mean = method.settings()[method.level]
        blocks = len(view.blocks)
        for block in range(blocks):
            progress("levels", block, blocks)
            seen = statistics(block)
            for site in view.sites(block):
                weight = view.weight(site)
                row = _held(_around(method, mean), weight, seen[site.name])
                if not row:
                    method.fit(weight, seen[site.name])  # says why it cannot
                sites.append(site)
                levels.append(_rising(row))
        return cls(sites, levels)


def _around(method: LayerMethod, mean: float) -> list[LayerMethod]:
    found = []
    for step in STEPS:
        try:
            turned = method.at(mean * (1 + step / 4))
        except OutOfReachError:
            continue
        if turned not in found:
            found.append(turned)
    return found


def _held(around: list[LayerMethod], weight: Tensor, statistics: InputStatistics) -> list[Format]:
    """A weight at each level at which a matrix of its shape can be held."""
    row = []
    for method in around:
        with contextlib.suppress(OutOfReachError):
            row.append(method.fit(weight, statistics))
    return row


def _rising(row: list[Format]) -> list[Format]:
    rising: list[Format] = []
    for held in row:
        if not rising or held.nbytes > rising[-1].nbytes:
            rising.append(held)
    return rising


def divide(
    table: LevelTable, view: View, windows: Tensor, bits: float, progress: Progress
) -> dict[str, Format]:
    """Divide a mean budget over the sites of a table by EvoPress on KL divergence.

    Args:
        table: what each site may be.
        view: the dense model; its weights are overwritten while searching, then restored.
        windows: calibration tokens [windows, length].
        bits: mean bits per weight over all sites.
        progress: told of every generation.

    Returns:
        The chosen format of each site by name.
    """
    weights = [view.module(site).weight for site in table.sites]
    originals = [weight.detach().clone() for weight in weights]
    budget = int(sum(weight.numel() for weight in weights) * bits / 8)
    trial = _Trial(view.model, weights, table, windows)
    start = _even(table.costs, budget)
    generations = 20
    try:
        best = evopress.evolve(
            table.costs,
            budget,
            trial.loss,
            start=start,
            generations=generations,
            offspring=12,
            selections=(evopress.Selection(FEW, 3), evopress.Selection(MANY, 1)),
            watch=lambda done, _: progress("evopress", done + 1, generations),
        )
    finally:
        for weight, original in zip(weights, originals, strict=True):
            weight.data.copy_(original)
    return {
        site.name: row[level]
        for site, row, level in zip(table.sites, table.levels, best, strict=True)
    }


def _even(costs: list[list[int]], budget: int) -> evopress.Levels:
    """The same place on every site's ladder, as high as the budget holds."""
    level = 0
    while evopress.cost(costs, tuple(min(level + 1, len(row) - 1) for row in costs)) <= budget:
        level += 1
        if all(level >= len(row) - 1 for row in costs):
            break
    return tuple(min(level, len(row) - 1) for row in costs)


class _Trial:
    """KL divergence from the dense model with some levels put in."""

    def __init__(
        self, model: nn.Module, weights: list[Tensor], table: LevelTable, windows: Tensor
    ) -> None:
        self.model, self.weights, self.table, self.windows = model, weights, table, windows
        self.current: list[int] = [-1] * len(weights)
        self.references: dict[int, Tensor] = {}
        for tokens in (FEW, MANY):
            self.references[tokens] = self._log_probabilities(tokens)

    def loss(self, levels: evopress.Levels, tokens: int) -> float:
        """Mean nats per token on the first `tokens` calibration tokens."""
        for index, level in enumerate(levels):
            if self.current[index] != level:
                dense = self.table.levels[index][level].dense()
                weight = self.weights[index]
                weight.data.copy_(dense if dense.shape == weight.shape else dense.T)
                self.current[index] = level
        reference = self.references[tokens]
        found = self._log_probabilities(tokens)
        return float((reference.exp() * (reference - found)).sum(-1).mean())

    @torch.inference_mode()
    def _log_probabilities(self, tokens: int) -> Tensor:
        count = max(1, tokens // self.windows.shape[1])
        logits = self.model(input_ids=self.windows[:count], use_cache=False).logits
        return logits.to(torch.float32).log_softmax(-1)
