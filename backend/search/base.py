"""The contract of an allocator: levels in, levels out; knows no model and no torch.

Every matrix of a model can be held at several levels, each with its bytes. An allocator chooses
one for each, so that all together keep a budget. What it wants to know of the model it asks of
the `Problem`.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, Self

from backend.settings import Configured

Levels = tuple[int, ...]
Progress = Callable[[str, int, int], None]


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
