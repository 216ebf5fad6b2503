"""The contract of a method: frozen settings, a budget, and one way to act; no model, no storage.

A method is a frozen dataclass in a file of its own. Its key is the file's name, its family the
folder's, its summary the first line of its docstring, its settings the fields made with
`setting`. The form on the page, the command line, the tables and the tests derive from that.
"""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from backend.errors import ModelError, OutOfReachError
from backend.methods.method import Effort, Leveled, Method, Needs, Outline, Stage, Text
from backend.methods.serving import CacheMethod, DecodeMethod, PrefillMethod, ServeMethod
from backend.settings import setting

__all__ = [
    "CacheMethod",
    "DecodeMethod",
    "Effort",
    "EncodeMethod",
    "LayerMethod",
    "Leveled",
    "Method",
    "ModelMethod",
    "Needs",
    "Outline",
    "PrefillMethod",
    "RankingMethod",
    "RepairMethod",
    "RunMethod",
    "ServeMethod",
    "Soft",
    "StackMethod",
    "Stage",
    "TableMethod",
    "Text",
    "TuneMethod",
    "setting",
]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.calibrate.walk import Walk
    from backend.formats import Format, Sparse
    from backend.methods.anatomy import Anatomy
    from backend.models.view import View


THERE_AND_BACK = 3
"""Products of every matrix in a step of gradient descent: for outputs, and for both gradients."""
ROUNDED = 40
"""Numbers read and written to round a weight in such a step, and to find the way back."""


PACE = 0.2
"""Of methods that do not say how long they take for a number."""


class LayerMethod(Leveled):
    """Treats one matrix at a time."""

    pace = PACE

    @abc.abstractmethod
    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """What holds a weight [rows, columns], float32, given its inputs' statistics."""

    @property
    def ladder(self) -> dict[str, Any]:
        """What the method does at every level: key, version and all settings but the level."""
        rest = {name: value for name, value in self.settings().items() if name != self.level}
        return {"method": self.key(), "version": self.version, "settings": rest}

    def outline(self, rows: int, columns: int) -> Outline:
        """What a matrix [rows, columns] will take; by default no more than the level says.

        Raises:
            OutOfReachError: a matrix of this shape cannot be held in so little.
        """
        level = self.settings()[self.level]
        return Outline(int(level * rows * columns / 8), exact=False)

    def fit_sparse(self, held: Sparse, statistics: InputStatistics) -> Format:
        """What holds the kept values of a sparse weight, whose places stay as they are.

        The default takes the values as they lie, one after another, and looks at no data.
        """
        return self.fit(held.values.dense(), statistics)

    def remark(self, rows: int, columns: int) -> str:  # noqa: ARG002 - most treat every shape
        """How a matrix of this shape is treated otherwise than asked; empty where it is not."""
        return ""


class StackMethod(LayerMethod):
    """A layer method whose result at any budget is the first parts of one decomposition."""

    @abc.abstractmethod
    def part_bytes(self, rows: int, columns: int) -> int:
        """Bytes of each part of a matrix [rows, columns]."""

    @abc.abstractmethod
    def stack(self, weight: Tensor, statistics: InputStatistics) -> list[Format]:
        """The parts of a weight [rows, columns], whose sum it nears; the level does not matter."""


class Soft(Protocol):
    """A matrix while it is learned."""

    def multiply(self, inputs: Tensor) -> Tensor:
        """Inputs [..., columns] times it: [..., rows]."""
        ...

    def learned(self) -> Iterable[Tensor]:
        """The numbers that gradients change, all that tells it from another of its weight."""
        ...

    def held(self) -> Format:
        """What holds it as it is by now."""
        ...


class RunMethod(LayerMethod):
    """Learns how matrices are held from what runs of neighbouring blocks make of them."""

    @property
    @abc.abstractmethod
    def runs(self) -> tuple[int, int]:
        """Blocks of a run, and how many of them the next run has too."""

    @abc.abstractmethod
    def soft(self, weight: Tensor, statistics: InputStatistics) -> Soft:
        """What stands for a weight [rows, columns], float32, while it is learned."""

    @abc.abstractmethod
    def learn(
        self,
        softs: Sequence[Soft],
        run: Callable[[Tensor], Tensor],
        inputs: Sequence[Tensor],
        wanted: Sequence[Tensor],
    ) -> None:
        """Bring what a run of blocks makes of its inputs as near as can be to what is wanted.

        Args:
            softs: what is in the run.
            run: its outputs of inputs, [..., columns] each, by way of what is learned.
            inputs: batches.
            wanted: outputs of each.
        """


class RankingMethod(LayerMethod):
    """Holds the rows that count most over a whole model finer, the others coarser."""

    @abc.abstractmethod
    def change(self, weight: Tensor) -> Tensor:
        """What a weight [rows, columns] changes by where all of its rows are held coarser."""

    @abc.abstractmethod
    def fine_rows(
        self, salience: Mapping[str, Tensor], columns: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Which rows of each matrix are held finer, all matrices within one budget.

        Args:
            salience: how much the loss rises where a row changes so, [rows] by site name.
            columns: of each matrix.
        """


class RepairMethod(Leveled):
    """Mends what earlier stages changed in a matrix; its level is the bits that it adds."""

    accepts = ()
    pace = PACE

    def added(self, rows: int, columns: int) -> tuple[int, bool]:
        """Bytes that it adds to a matrix [rows, columns], at most, and whether it is these.

        Raises:
            OutOfReachError: nothing can be added to a matrix of this shape in so little.
        """
        return int(self.settings()[self.level] * rows * columns / 8), False

    @abc.abstractmethod
    def mend(self, weight: Tensor, held: Format, statistics: InputStatistics) -> Format:
        """What takes the place of `held`, which stands for a weight [rows, columns], float32."""


class TuneMethod(Method):
    """Trains a few numbers of a compressed model, whose bytes stay as many."""

    needs = Needs.TEXT
    accepts = ()
    together: ClassVar[int] = 4  # windows of a step

    def at(self, bits: float) -> Self:  # noqa: ARG002 - what is held stays as it is
        """Itself: training holds nothing in fewer bits."""
        return self

    @abc.abstractmethod
    def trains(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether it trains a parameter of the model as that is held, by its name and shape."""

    @property
    @abc.abstractmethod
    def schedule(self) -> tuple[int, float]:
        """Steps, and the learning rate at its highest."""

    def effort(self, anatomy: Anatomy, text: Text) -> Effort:
        """Steps through the whole model and back."""
        return Effort(THERE_AND_BACK * self.schedule[0] * anatomy.numbers * text.step)


class TableMethod(Leveled):
    """Holds the tables of tokens, embedding and head, once where they are tied."""

    accepts = ()
    pace = PACE

    @abc.abstractmethod
    def outline(self, rows: int, columns: int) -> Outline:
        """What a table [vocabulary, width] will take.

        Raises:
            OutOfReachError: a table of this shape cannot be held in so little.
        """

    @abc.abstractmethod
    def hold(self, table: Tensor) -> Format:
        """What holds a table [vocabulary, width], float32."""

    def saved(self, anatomy: Anatomy) -> tuple[int, bool]:
        """Bytes fewer than in 16 bits, at least, and whether it is these.

        Raises:
            ModelError: no table of tokens is found.
            OutOfReachError: a table cannot be held in so little.
        """
        if not anatomy.tables:
            raise ModelError(f"{self.key()} needs a table of tokens; this model has none.")
        outlines = [self.outline(*shape) for shape in anatomy.tables]
        dense = sum(2 * rows * columns for rows, columns in anatomy.tables)
        return dense - sum(one.nbytes for one in outlines), all(one.exact for one in outlines)

    def effort(self, anatomy: Anatomy, text: Text) -> Effort:  # noqa: ARG002 - no text is read
        """Its pace, of the tables."""
        return Effort(core_seconds=1e-6 * self.pace * sum(map(math.prod, anatomy.tables)))


class EncodeMethod(Leveled):
    """Holds 16-bit numbers in fewer bits, every one as it was."""

    accepts = ()
    pace = PACE

    @abc.abstractmethod
    def encode(self, values: Tensor) -> Format | None:
        """What holds a matrix, bfloat16, bit for bit; None where that would take no less."""


class ModelMethod(Leveled):
    """Rewrites a whole model before its matrices are treated."""

    pace = PACE

    models: ClassVar[tuple[str, ...]] = ()
    """Types of model that it knows; empty where it takes any."""
    keeps: ClassVar[bool] = False
    """Whether it holds the moments of all blocks' heads and neurons at once, and their readers."""
    holds_tables: ClassVar[bool] = False
    """Whether it leaves embedding and head held, so that no method for tables treats them."""

    @abc.abstractmethod
    def least(self, anatomy: Anatomy) -> int:
        """The fewest numbers of 16 bits that it can leave of a model.

        Raises:
            ModelError: a model made like this cannot be treated.
        """

    def left(self, anatomy: Anatomy) -> Anatomy | None:  # noqa: ARG002 - most ask the data
        """What it leaves of a model, where that follows from shapes alone."""
        return None

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a model that cannot be treated, or not in so little.

        Raises:
            ModelError: it is of a type that the method does not know, or made otherwise.
            OutOfReachError: says what the smallest budget is.
        """
        if self.models and anatomy.kind not in self.models:
            known = ", ".join(self.models)
            raise ModelError(
                f"{self.key()} knows {known}, not {anatomy.kind}; take svd or lord instead."
            )
        bits, least = self.settings()[self.level], self.least(anatomy)
        if bits / 16 * anatomy.numbers < least:
            reach = math.ceil(1600 * least / anatomy.numbers) / 100
            raise OutOfReachError(
                f"{self.key()} holds {reach:.2f} bits per number of this model or more, not "
                f"{bits:g}; ask for {reach:.2f} or more, or take a method that reaches lower."
            )

    @abc.abstractmethod
    def rewrite(self, walk: Walk) -> dict[str, Any]:
        """Change the model of a walk in place; returns what `rebuild` needs, as plain JSON.

        What it could not treat it names in a list under `remarks`.
        """

    @classmethod
    @abc.abstractmethod
    def rebuild(cls, view: View, record: dict[str, Any]) -> None:
        """Give a dense model's skeleton the shape that `rewrite` left, tensors uninitialised."""
