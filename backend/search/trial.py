"""A real model with levels put in: what allocators ask, answered by running it."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from backend.later import torch
from backend.search.base import Levels, Progress

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.view import View
    from backend.search.level_table import LevelTable

TOKENS = 4096  # calibration tokens on which a level is judged alone
MILD, STRONG = 0.003, 0.1  # output errors near which a site's worth is measured
DENSE = -1


class Trial:
    """The dense model of a view, whose weights are put at levels, and back by `restored`."""

    def __init__(self, view: View, levels: LevelTable, windows: Tensor) -> None:
        self.table = levels.table
        self._view, self._levels, self._windows = view, levels, windows
        self._weights = [view.module(site).weight for site in levels.sites]
        self._dense: dict[int, Tensor] = {}
        self._current: list[int] = [DENSE] * len(self._weights)
        self._references: dict[int, Tensor] = {}

    @contextlib.contextmanager
    def restored(self) -> Iterator[Trial]:
        """Put every weight back at the end, whatever happens."""
        try:
            yield self
        finally:
            self._put([DENSE] * len(self._weights))

    def loss(self, levels: Levels, tokens: int) -> float:
        """KL divergence from the dense model with these levels, on so many calibration tokens."""
        return self._loss(levels, tokens)

    def losses(self, progress: Progress) -> tuple[tuple[float, ...], ...]:
        """What each level of each site costs alone, in nats a token; measured once, then kept.

        Two levels are measured, one mild and one strong. Between and beyond them the logarithm
        of the divergence follows that of the output's error.
        """
        kept = self._levels.losses_file
        if kept.is_file():
            return tuple(map(tuple, json.loads(kept.read_text())))
        found = []
        count = len(self._weights)
        for index, errors in enumerate(self.table.errors):
            progress("worth", index, count)
            known = {}
            for level in {_nearest(errors, MILD), _nearest(errors, STRONG)}:
                alone = [DENSE] * count
                alone[index] = level
                known[errors[level]] = self._loss(alone, TOKENS)
            found.append(tuple(_follow(known, error) for error in errors))
        partial = kept.with_suffix(".part")
        partial.write_text(json.dumps(found))
        partial.replace(kept)
        return tuple(found)

    def importance(self, score: str) -> list[float]:
        """How much each block matters.

        Args:
            score: `input`, how far its output is from its input, or `outliers`, its share of
                weights more than a standard deviation above their mean.
        """
        if score == "outliers":
            return [self._outliers(block) for block in range(len(self._view.blocks))]
        hidden, blocks = self._view.enter(self._windows[: max(1, TOKENS // self._length)])
        found = []
        for block in blocks:
            with torch.no_grad():
                after = block(hidden)
            found.append(1 - float(torch.cosine_similarity(hidden, after, dim=-1).mean()))
            hidden = after
        return found

    @property
    def _length(self) -> int:
        return self._windows.shape[1]

    def _outliers(self, block: int) -> float:
        weights = torch.cat([self._view.weight(s).flatten() for s in self._view.sites(block)])
        return float((weights > weights.mean() + weights.std()).float().mean())

    def _loss(self, levels: Sequence[int], tokens: int) -> float:
        reference = self._reference(tokens)
        self._put(levels)
        found = self._log_probabilities(tokens)
        return max(0.0, float((reference.exp() * (reference - found)).sum(-1).mean()))

    def _reference(self, tokens: int) -> Tensor:
        if tokens not in self._references:
            self._put([DENSE] * len(self._weights))
            self._references[tokens] = self._log_probabilities(tokens)
        return self._references[tokens]

    def _put(self, levels: Sequence[int]) -> None:
        for index, level in enumerate(levels):
            if self._current[index] == level:
                continue
            weight = self._weights[index]
            original = self._dense.setdefault(index, weight.detach().clone())
            if level == DENSE:
                weight.data.copy_(original)
            else:
                dense = self._levels.held(index, level).dense()
                weight.data.copy_(dense if dense.shape == weight.shape else dense.T)
            self._current[index] = level

    def _log_probabilities(self, tokens: int) -> Tensor:
        count = max(1, tokens // self._length)
        with torch.inference_mode():
            logits = self._view.model(input_ids=self._windows[:count], use_cache=False).logits
            return logits.to(torch.float32).log_softmax(-1)


def _nearest(errors: Sequence[float], wanted: float) -> int:
    """The level whose error is nearest to one wanted, by ratio."""
    return min(
        range(len(errors)), key=lambda level: abs(math.log(max(errors[level], 1e-12) / wanted))
    )


def _follow(known: dict[float, float], error: float) -> float:
    """A divergence at an error: a power of it through two known points, in proportion past one."""
    tiny = 1e-12
    points = [(math.log(max(e, tiny)), math.log(max(k, tiny))) for e, k in sorted(known.items())]
    x = math.log(max(error, tiny))
    if len(points) == 1 or not points[0][0] < x < points[-1][0]:
        nearest = points[0] if x <= points[0][0] else points[-1]
        return math.exp(nearest[1] + x - nearest[0])
    (x0, y0), (x1, y1) = points
    return math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
