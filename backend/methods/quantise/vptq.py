"""VPTQ: vectors of outputs in codebooks, column by column, each error mended by later columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.later import torch
from backend.methods import _surgeon
from backend.methods.base import LayerMethod, Needs, Outline, Stage, setting
from backend.methods.quantise import _grid, _vectors

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format
    from backend.methods.quantise._vectors import Level


@dataclass(frozen=True)
class Plan:
    """How columns are held: `fine` for `apart` of them, `coarse` for the rest."""

    coarse: Level
    fine: Level
    apart: int


@dataclass(frozen=True)
class Vptq(LayerMethod):
    """Hold a few neighbouring outputs of an input together, as one index into a codebook.

    Codebooks come from k-means in which each weight counts as the Hessian of the outputs says. Then
    columns are taken one after another: all vectors of a column at once go to their nearest
    entries, and what that changes is mended in the columns not yet taken, as in GPTQ, so that no
    two vectors' errors add up unseen. A second codebook holds what the first leaves. The columns
    with the most energy, the outliers, have finer codebooks of their own, as many as the budget
    holds.
    """

    stage = Stage.QUANTISE
    needs = Needs.HESSIAN
    pace = 0.7
    paper = "arXiv 2409.17066"
    claim = "At 2 bits 0.01 to 0.68 less perplexity on 7B models; 1.6x to 1.8x the throughput."
    limits = "A codebook of 256 vectors of 4 takes 2 kB, which narrow matrices feel."
    accepts = ("dense", "low-rank")
    yields = ("transposed",)

    bits: float = setting(2.5, "Bits per weight, indices and codebooks counted.", low=1.2, high=4.0)
    length: int = setting(4, "Longest vector; it divides the outputs.", choices=(2, 4, 8))
    residual: bool = setting(
        True, "Let a second codebook hold what the first leaves.", choices=(True, False)
    )
    damping: float = setting(
        0.01, "Share of the mean diagonal added to the Hessian.", low=1e-4, high=1.0
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """At most the budget: how many columns are apart is known once a matrix is seen."""
        self._coarse(rows, columns)
        return super().outline(rows, columns)

    def plan(self, rows: int, worth: Tensor) -> Plan:
        """The two levels, and how many columns have the finer, that are expected to lose least.

        Args:
            rows: of the matrix.
            worth: what an error in each column costs, those first that are first apart, [columns].

        Raises:
            OutOfReachError: not even the coarsest level fits.
        """
        columns = worth.numel()
        budget, taken = self._budget(rows, columns), self._coarse(rows, columns)
        sums = torch.nn.functional.pad(worth.double().cumsum(0), (1, 0)).tolist()
        found: list[tuple[float, Plan]] = []
        for coarse, nbytes in taken.items():
            found.append((coarse.distortion * sums[-1], Plan(coarse, coarse, 0)))
            for fine in self._levels(rows):
                step = fine.row(rows) - coarse.row(rows)
                spare = budget - nbytes - fine.codebooks - -(-columns // 8)
                if fine.distortion >= coarse.distortion or step <= 0 or spare < step:
                    continue
                apart = min(columns - 1, spare // step)
                lost = fine.distortion * sums[apart]
                lost += coarse.distortion * (sums[-1] - sums[apart])
                found.append((lost, Plan(coarse, fine, apart)))
        return min(found, key=lambda one: one[0])[1]

    def _levels(self, rows: int) -> list[Level]:
        known = _vectors.levels(rows, self.length)
        return [one for one in known if self.residual or len(one.bits) == 1]

    def _budget(self, rows: int, columns: int) -> int:
        return int(self.bits * rows * columns / 8 + 1e-6)

    def _coarse(self, rows: int, columns: int) -> dict[Level, int]:
        """The levels that hold all columns within the budget, and their bytes.

        Raises:
            OutOfReachError: there is none.
        """
        known = self._levels(rows)
        taken = {one: columns * one.row(rows) + one.codebooks for one in known}
        budget = self._budget(rows, columns)
        if min(taken.values()) > budget:
            least = -(-8 * min(taken.values()) // rows)
            raise _grid.too_little(rows, columns, self.bits, least, "in vectors")
        return {one: nbytes for one, nbytes in taken.items() if nbytes <= budget}

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Hold a weight [rows, columns] against the Hessian of its inputs."""
        rows, columns = weight.shape
        weight = statistics.alive(weight)
        order = statistics.order
        factor = statistics.inverse_factor(self.damping, ordered=True)
        worth = factor.diagonal().pow(-2) * weight[:, order].square().mean(0)
        plan = self.plan(rows, worth)
        mask = torch.zeros(columns, dtype=torch.bool, device=weight.device)
        mask[order[: plan.apart]] = True
        counts = statistics.mean_squares
        parts = {
            False: _Part(weight.T[~mask], counts[~mask], plan.coarse, columns),
            True: _Part(weight.T[mask], counts[mask], plan.fine, columns) if plan.apart else None,
        }
        places, apart = order.tolist(), mask.tolist()

        def treat(index: int, values: Tensor) -> Tensor:
            place = places[index]
            part = parts[apart[place]]
            assert part is not None, "a column apart has its codebook"
            return part.round(place, values)

        _surgeon.sweep(_surgeon.columns_of(weight, order), factor, treat)
        coarse, fine = parts[False], parts[True]
        assert coarse is not None, "a column at least is not apart"
        held = coarse.held(~mask)
        if fine is not None:
            held = formats.Rows.pack(mask, fine.held(mask), held)
        return formats.Transposed.of(held)


class _Part:
    """Columns that share codebooks, on their way through the sweep."""

    def __init__(self, chosen: Tensor, counts: Tensor, level: Level, columns: int) -> None:
        """Set the codebooks by the columns [number, rows] as they are and how much each counts."""
        self.level = level
        vectors, weights = _vectors.drawn(chosen, counts, level.length)
        self.entries = []
        for bits in level.bits:
            entries = _vectors.codebook(vectors, weights, 1 << bits)
            vectors = vectors - entries[_vectors.nearest(vectors, entries)]
            self.entries.append(entries)
        groups = chosen.shape[1] // level.length
        self.indices = [chosen.new_zeros(columns, groups, dtype=torch.uint8) for _ in level.bits]

    def round(self, place: int, values: Tensor) -> Tensor:
        """What is held of a column's values [rows]: the nearest entries, then of what is left."""
        left = values.reshape(-1, self.level.length)
        total = torch.zeros_like(left)
        for entries, indices in zip(self.entries, self.indices, strict=True):
            found = _vectors.nearest(left, entries)
            indices[place] = found.to(torch.uint8)
            total, left = total + entries[found], left - entries[found]
        return total.flatten()

    def held(self, mask: Tensor) -> Format:
        """The columns where `mask` is true, as rows."""
        parts = {
            f"codebook{place}": formats.VectorCodebook.pack(indices[mask], entries)
            for place, (indices, entries) in enumerate(zip(self.indices, self.entries, strict=True))
        }
        return parts["codebook0"] if len(parts) == 1 else formats.Sum.of(**parts)
