"""LQ-LoRA: a matrix as few-bit codes and two thin factors, found in turns."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.errors import OutOfReachError
from backend.later import torch
from backend.methods.base import LayerMethod, Needs, Outline, Stage, setting
from backend.methods.factorise import _rank
from backend.methods.quantise import _grid, _tables

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

WIDTHS = (2, 3, 4)
ROUNDS = 3
DAMPING = 0.01
SHARES = (1.0, 0.5, 0.25)  # of the bits for factors that are tried: narrow codes may want them
STEP, NEIGHBOURS = 1 / 8, 2  # fixed budgets below one's own, among which the best split is kept


@dataclass(frozen=True)
class LqLora(LayerMethod):
    """Split each matrix into a quantised part and a product of low rank, one after the other.

    The product comes first and the codes take what it misses, the product what the codes miss, in
    turns as long as less is lost. Codes are those of NormalFloat, evenly likely for weights from a
    normal curve. The product is the best where an error counts by the Fisher information of its row
    and its column, which keeps a closed form. Of these turns, also with half and a quarter of the
    bits for the product, which leaves more to the codes, and at the next budgets below, the one
    stays with which the layer's outputs change least. Which matrix gets how many bits is an integer
    program: put ` by integer-program` behind the recipe.
    """

    stage = Stage.QUANTISE
    needs = Needs.GRADIENTS | Needs.HESSIAN
    pace = 9.0
    paper = "arXiv 2311.12023"
    claim = "At 2.75 bits a model of 70B in 27 GB close to full precision."
    limits = "The product stays as it is found; no fine-tuning follows."
    yields = ("sum",)
    version = 2

    bits: float = setting(
        4.0, "Bits per weight, scales, tables and factors counted.", low=2.2, high=4.75
    )
    factors: float = setting(
        0.4,
        "Most bits per weight for the two factors; at least one column each.",
        low=0.05,
        high=2.0,
    )
    group_size: int = setting(64, "Weights that share a scale.", choices=(32, 64, 128, 256))

    def outline(self, rows: int, columns: int) -> Outline:
        """At most the budget: a little less of it may hold a matrix better."""
        self._split(rows, columns, self.bits, self._rank(rows, columns))
        return super().outline(rows, columns)

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Split a weight [rows, columns]."""
        rows, columns = weight.shape
        self._split(rows, columns, self.bits, self._rank(rows, columns))
        sensitivity = statistics.sensitivity(rows).clamp(min=0)
        down, _ = _sides(sensitivity)
        hessian = statistics.damped(DAMPING)
        best: tuple[float, Format] | None = None
        below = math.ceil(self.bits / STEP) - 1
        neighbours = (STEP * (below - place) for place in range(NEIGHBOURS))
        ranks = {self._rank(rows, columns, share) for share in SHARES}
        for bits, rank in itertools.product((self.bits, *neighbours), sorted(ranks)):
            with contextlib.suppress(OutOfReachError):
                split = self._split(rows, columns, bits, rank)
                for codes, factors in self._rounds(weight, split, rank, sensitivity):
                    change = (codes.dense() + factors.dense() - weight) * down
                    lost = float(((change @ hessian) * change).sum())
                    if best is None or lost < best[0]:
                        best = lost, formats.Sum.of(codes=codes, factors=factors)
        assert best is not None, "its own split at least"
        return best[1]

    def _rounds(
        self, weight: Tensor, split: _tables.Split, rank: int, sensitivity: Tensor
    ) -> Iterator[tuple[Format, Format]]:
        """Codes and factors in turns, until their Fisher-weighed loss no longer falls."""
        down, across = _sides(sensitivity)
        size = min(self.group_size, weight.shape[1])
        held, least = torch.zeros_like(weight), math.inf
        for _ in range(ROUNDS):
            left, right = _rank.leading((weight - held) * down * across, rank)
            factors = formats.LowRank.pack(left / down, right / across)
            product = factors.dense()
            codes = _tables.hold(weight - product, size, split, sensitivity, _table)
            held = codes.dense()
            lost = float(((held + product - weight) * down * across).square().sum())
            if not lost < least:
                return
            least = lost
            yield codes, factors

    def _rank(self, rows: int, columns: int, share: float = 1.0) -> int:
        return max(1, int(share * self.factors * rows * columns / 16 // (rows + columns)))

    def _split(self, rows: int, columns: int, bits: float, rank: int) -> _tables.Split:
        """How many rows have codes how wide.

        Raises:
            OutOfReachError: two-bit codes and the factors take more than the budget.
        """
        size, beside = min(self.group_size, columns), 16 * rank
        budget = bits * rows * columns - beside * (rows + columns)
        found = _tables.widths((rows, columns), budget, size, WIDTHS)
        if found is None:
            least = 8 * _tables.nbytes((rows, columns), size, (2, 2, 0)) + beside * (rows + columns)
            raise _grid.too_little(rows, columns, self.bits, -(-least // rows), "with two factors")
        return found


def _table(groups: Tensor, width: int) -> Tensor:
    return normal_float(width).to(groups.device)


def normal_float(width: int) -> Tensor:
    """NormalFloat of QLoRA (arXiv 2305.14314): quantiles of a normal curve, 0 among them."""
    margin = (1 / 32 + 1 / 30) / 2
    half = 1 << (width - 1)
    lower = torch.linspace(margin, 0.5, half, dtype=torch.float64)
    upper = torch.linspace(0.5, 1 - margin, half + 1, dtype=torch.float64)
    places = torch.cat([lower[:-1], upper])
    values = torch.special.ndtri(places)
    return (values / values[-1]).to(torch.float32)


def _sides(sensitivity: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of the mean Fisher information of rows [rows, 1] and of columns [1, columns].

    Their product stands for that of every weight, so that the best product is a plain singular
    value decomposition between two diagonal matrices.
    """
    roots = sensitivity.sqrt()
    down, across = roots.mean(1, keepdim=True), roots.mean(0, keepdim=True)
    floor = 1e-3 * across.mean() + 1e-30
    return (down / down.mean().clamp(min=1e-30)).clamp(min=1e-3), across.clamp(min=floor)
