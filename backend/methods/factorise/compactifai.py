"""CompactifAI: a matrix as a chain of tensors, cut where they are least entangled."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.errors import OutOfReachError
from backend.later import torch
from backend.methods.base import Outline, setting
from backend.methods.factorise import _rank
from backend.methods.quantise import _grid

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

Shape = tuple[int, int, int, int]
"""Of a core: bond before, row digit, column digit, bond after."""


@dataclass(frozen=True)
class Compactifai(_rank.Factoriser):
    """Replace each matrix by a matrix product operator: small tensors joined by bonds.

    Rows and columns are written as two or more digits, and a sequence of singular value
    decompositions splits off one digit of both after another, keeping the largest values at each
    cut: the bond dimension, up to which correlations between digits survive. Digits of about one
    size are tried, and digits that fall for rows and rise for columns; what changes the weights
    less is kept. The chain is multiplied core by core and never made whole. Cores can be rounded
    to 8 or 4 bits as well, and then hold more at a budget. No data is looked at.
    """

    pace = 2.5
    paper = "arXiv 2401.14109"
    claim = "LLaMA-2 7B takes 93 % less memory and 70 % fewer parameters at 2 to 3 % less accuracy."
    limits = (
        "The healing by a brief retraining is left out, and every matrix is cut alike where the "
        "budget is not divided over layers by how sensitive they are."
    )
    yields = ("tensor-train", "dense")

    cores: int = setting(2, "Tensors in a chain.", choices=(2, 3))
    precision: int = setting(
        16, "Bits of a number in a core; below 16 in groups of 64 with a scale.", choices=(16, 8, 4)
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """The cores, which no later stage treats, in the digits that take more."""
        if self.bits >= 16:
            return Outline(leaves=((rows, columns),))
        taken = [sum(map(self._nbytes, one)) for one in self.chains(rows, columns)]
        return Outline(max(taken), exact=False)

    def chains(self, rows: int, columns: int) -> list[list[Shape]]:
        """Chains that fit the budget, in one choice of digits each.

        Raises:
            OutOfReachError: none does.
        """
        found, refusals = [], []
        for digits in (_even, _rising):
            down, across = digits(rows, self.cores), digits(columns, self.cores)
            if digits is _rising:
                down = down[::-1]
            try:
                found.append(self._shapes(down, across))
            except OutOfReachError as error:
                refusals.append(error)
        if not found:
            raise refusals[0]
        return found

    def _shapes(self, down: list[int], across: list[int]) -> list[Shape]:
        """Cores with the largest bond, the same at each cut, that fits the budget.

        Raises:
            OutOfReachError: a bond of one takes more.
        """
        rows, columns = math.prod(down), math.prod(across)
        budget = self.bits * rows * columns / 8 + 1e-6

        def at(bond: int) -> list[Shape]:
            sizes = [one * other for one, other in zip(down, across, strict=True)]
            full = [min(math.prod(sizes[:cut]), math.prod(sizes[cut:])) for cut in (1, 2)]
            bonds = [min(bond, full[cut]) for cut in range(self.cores - 1)]
            return list(zip([1, *bonds], down, across, [*bonds, 1], strict=True))

        low, high = 0, rows * columns
        while high - low > 1:
            middle = (low + high) // 2
            fits = sum(map(self._nbytes, at(middle))) <= budget
            low, high = (middle, high) if fits else (low, middle)
        if low < 1:
            least = 8 * sum(map(self._nbytes, at(1))) / (rows * columns)
            raise OutOfReachError(
                f"A chain of {self.cores} tensors for a matrix {rows} x {columns} takes "
                f"{least:.2f} bits per number or more, not {self.bits:g}."
            )
        return at(low)

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:  # noqa: ARG002
        """Split a weight [rows, columns] into cores."""
        if self.bits >= 16:
            return formats.Dense.pack(weight)
        best: tuple[float, Format] | None = None
        for shapes in self.chains(*weight.shape):
            cores = split(weight, shapes)
            rounded = None if self.precision == 16 else list(map(self._rounded, cores))
            held = formats.TensorTrain.pack(cores, rounded)
            lost = float((held.dense() - weight).square().sum())
            if best is None or lost < best[0]:
                best = lost, held
        assert best is not None, "one chain at least"
        return best[1]

    def _nbytes(self, shape: Shape) -> int:
        before, digit, across, after = shape
        rows, columns = before * digit, across * after
        if self.precision == 16:
            return 2 * rows * columns
        return rows * _grid.width_bits(columns, self.precision, _group(columns), True) // 8

    def _rounded(self, core: Tensor) -> Format:
        matrix = core.flatten(2).flatten(0, 1)
        size = _group(matrix.shape[1])
        codes, scales, _ = _grid.round_to_nearest(matrix, self.precision, size, True)
        return formats.IntegerGroups.pack(codes, scales, bits=self.precision, group_size=size)


def split(weight: Tensor, shapes: list[Shape]) -> list[Tensor]:
    """Cores of a weight [rows, columns], by one singular value decomposition a cut."""
    down, across = [one[1] for one in shapes], [one[2] for one in shapes]
    count = len(shapes)
    pairs = itertools.chain.from_iterable((place, count + place) for place in range(count))
    rest = weight.reshape(*down, *across).permute(*pairs).reshape(1, -1)
    found = []
    for before, digit, wide, after in shapes[:-1]:
        rest = rest.reshape(before * digit * wide, -1)
        left, values, right = torch.linalg.svd(rest, full_matrices=False)
        root = values[:after].sqrt()
        found.append((left[:, :after] * root).view(before, digit, wide, after))
        rest = root[:, None] * right[:after]
    return [*found, rest.reshape(shapes[-1])]


def _group(columns: int) -> int:
    return min(64, columns)


def _even(number: int, count: int) -> list[int]:
    """`count` divisors of a number as near to each other as they come, the largest last."""
    if count == 1:
        return [number]
    wanted = round(number ** (1 / count))
    first = next(one for one in range(max(wanted, 1), 0, -1) if number % one == 0)
    return [first, *_even(number // first, count - 1)]


def _rising(number: int, count: int) -> list[int]:
    """The smallest divisors but one of a number, and what is left of it last."""
    if count == 1:
        return [number]
    first = next((one for one in range(2, number) if number % one == 0), 1)
    return [first, *_rising(number // first, count - 1)]
