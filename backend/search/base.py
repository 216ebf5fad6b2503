"""The contract of an allocator: levels in, levels out; knows no model and no torch.

Every matrix of a model can be held at several levels, each with its bytes. An allocator chooses
one for each, so that all together keep a budget. What it wants to know of the model it asks of
the `Problem`.
"""

from __future__ import annotations

import abc
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol, Self

from backend.errors import OutOfReachError
from backend.settings import Configured

if TYPE_CHECKING:
    from backend.methods.base import StackMethod

Levels = tuple[int, ...]
Progress = Callable[[str, int, int], None]
LADDER = (
    0.5, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5.25, 6.25, 7.25, 8.25,
    9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0,
)  # fmt: skip
"""Bits of the levels: those of whole code widths with a scale and an offset to 128 weights."""


@dataclass(frozen=True)
class Table:
    """Every matrix at every level, fewest bytes first.

    Attributes:
        names: of the matrices.
        blocks: in which block each stands.
        numbers: weights of each.
        costs: bytes of each at each level, rising.
        errors: what each level changes in the outputs, as a share of their energy.
        losses: nats a token that each level costs where it is the only one that is not dense;
            empty until they are known.
    """

    names: tuple[str, ...]
    blocks: tuple[int, ...]
    numbers: tuple[int, ...]
    costs: tuple[tuple[int, ...], ...]
    errors: tuple[tuple[float, ...], ...]
    losses: tuple[tuple[float, ...], ...] = ()

    def to_json(self) -> str:
        """As text, from which `from_json` makes the same."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Undo `to_json`."""
        fields = json.loads(text)
        deep = ("costs", "errors", "losses")
        return cls(
            **{
                name: tuple(map(tuple, value)) if name in deep else tuple(value)
                for name, value in fields.items()
            }
        )

    def budget(self, bits: float) -> int:
        """Bytes that a mean of so many bits a weight allows."""
        return int(sum(self.numbers) * bits / 8)


class Problem(Protocol):
    """A model whose budget is to be divided."""

    table: Table

    def loss(self, levels: Levels, tokens: int) -> float:
        """KL divergence from the dense model with these levels, on so many calibration tokens."""
        ...

    def losses(self, progress: Progress) -> tuple[tuple[float, ...], ...]:
        """What each level of each matrix costs alone, in nats a token; measured once."""
        ...

    def importance(self, score: str) -> list[float]:
        """How much each block matters, by one of the scores of `layerwise`."""
        ...


@dataclass(frozen=True)
class Allocator(Configured, abc.ABC):
    """Divides a budget over the matrices of a model."""

    @abc.abstractmethod
    def divide(self, problem: Problem, budget: int, progress: Progress) -> Levels:
        """The level of each matrix, all together within `budget` bytes."""


def cost(costs: Sequence[Sequence[int]], levels: Sequence[int]) -> int:
    """What levels cost in all."""
    return sum(costs[index][level] for index, level in enumerate(levels))


def check_reach(recipe: str, least: int, numbers: int, budget: int) -> None:
    """Refuse a budget in bytes below what all matrices take at their lowest levels.

    Raises:
        OutOfReachError: says what the smallest budget is.
    """
    if least > budget:
        reach = math.ceil(800 * least / numbers) / 100
        raise OutOfReachError(
            f"{recipe}: all layers at their lowest level take {reach:.2f} bits a weight or more, "
            f"not {8 * budget / numbers:.2f}; ask for {reach:.2f} or more."
        )


def check_parts(method: StackMethod, shapes: Sequence[tuple[int, int]]) -> None:
    """Refuse a budget below one part of every matrix [rows, columns].

    Raises:
        OutOfReachError: says what the smallest budget is.
    """
    numbers = sum(rows * columns for rows, columns in shapes)
    least = sum(method.part_bytes(*shape) for shape in shapes)
    budget = int(method.settings()[method.level] * numbers / 8 + 1e-6)
    check_reach(method.key(), least, numbers, budget)


def even(costs: Sequence[Sequence[int]], budget: int) -> Levels:
    """The same place on every ladder, as high as the budget holds; the lowest if none does."""
    highest = max(len(row) for row in costs) - 1
    levels = tuple(0 for _ in costs)
    for place in range(1, highest + 1):
        raised = tuple(min(place, len(row) - 1) for row in costs)
        if cost(costs, raised) > budget:
            break
        levels = raised
    return levels


def raised(
    levels: Sequence[int], costs: Sequence[Sequence[int]], budget: int, order: Sequence[int]
) -> Levels:
    """Levels raised in an order of preference, each as far as the budget still holds."""
    found, spent = list(levels), cost(costs, levels)
    for index in order:
        row = costs[index]
        while found[index] + 1 < len(row):
            step = row[found[index] + 1] - row[found[index]]
            if spent + step > budget:
                break
            spent += step
            found[index] += 1
    return tuple(found)
