"""What every method is: its place in a recipe, what it must know, its budget and what it leaves."""

from __future__ import annotations

import abc
import dataclasses
import enum
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Self

from backend.errors import OutOfReachError
from backend.settings import Configured

if TYPE_CHECKING:
    from backend.methods.anatomy import Anatomy


class Stage(enum.IntEnum):
    """Where in a recipe a method stands; a recipe holds at most one of each, in this order."""

    RESHAPE = 1
    ROTATE = 2
    SPARSIFY = 3
    FACTOR = 4
    QUANTISE = 5
    REPAIR = 6
    TABLES = 7
    ENCODE = 8
    ATTEND = 9
    CACHE = 10
    PREFILL = 11
    DECODE = 12


class Needs(enum.Flag):
    """What a method wants to know of the data that flows through a layer."""

    NOTHING = 0
    NORMS = enum.auto()
    HESSIAN = enum.auto()
    GRADIENTS = enum.auto()
    SAMPLES = enum.auto()  # some inputs as they are
    EACH_GRADIENT = enum.auto()  # of the loss of each text
    TEXT = enum.auto()  # read once by the model as it is by then


@dataclass(frozen=True)
class Outline:
    """What a matrix will take, known before it is treated.

    Attributes:
        nbytes: held by formats of the method's own: codes, scales, masks.
        leaves: shapes of the bfloat16 matrices inside, which a later stage may compress.
        exact: whether these are the very bytes; else the most they can be.
    """

    nbytes: int = 0
    leaves: tuple[tuple[int, int], ...] = ()
    exact: bool = True


@dataclass(frozen=True)
class Text:
    """Calibration text, as far as it tells how long a method takes.

    Attributes:
        tokens: all of them.
        windows: whose losses have gradients one by one.
        step: tokens from which a step of gradient descent learns.
        samples: inputs of a matrix that are kept as they are, at most.
    """

    tokens: int
    windows: int
    step: int
    samples: int


@dataclass(frozen=True)
class Effort:
    """What a method has to do beside reading text.

    Attributes:
        multiplied: multiplications in products of matrices.
        touched: numbers read and changed one by one, which memory delays.
        core_seconds: of a core, as measured.
    """

    multiplied: float = 0.0
    touched: float = 0.0
    core_seconds: float = 0.0


@dataclass(frozen=True)
class Method(Configured, abc.ABC):
    """What all methods share."""

    stage: ClassVar[Stage]
    needs: ClassVar[Needs] = Needs.NOTHING
    level: ClassVar[str] = "bits"
    accepts: ClassVar[tuple[str, ...]] = ("dense",)
    yields: ClassVar[tuple[str, ...]] = ()
    pace: ClassVar[float] = 0.0
    """Microseconds of a core for each number of a matrix of 4,096 columns, as measured."""

    @classmethod
    def family(cls) -> str:
        """Family of the method: its folder."""
        return cls.__module__.rsplit(".", 2)[1]

    @abc.abstractmethod
    def at(self, bits: float) -> Self:
        """The same with its level turned so that at most `bits` are held per original number.

        Raises:
            OutOfReachError: the method cannot hold that little.
        """

    def wants(self) -> Needs:
        """What it wants to know of the data, its settings being what they are."""
        return self.needs

    def effort(self, anatomy: Anatomy, text: Text) -> Effort:  # noqa: ARG002 - most have a pace
        """What it has to do with a model."""
        return Effort(core_seconds=1e-6 * self.pace * anatomy.linear)

    @classmethod
    def _turn(cls, method: Self, bits: float) -> Self:
        """`method` with its level set to `bits`, or a refusal that names the reach."""
        about = next(field for field in fields(cls) if field.name == cls.level).metadata
        low, high = about["low"], about["high"]
        if not math.isfinite(bits) or bits < low:
            raise OutOfReachError(
                f"{cls.key()} holds {low:g} to {high:g} bits per number, not {bits:g}; "
                f"ask for {low:g} or more, or take a method that reaches lower."
            )
        return dataclasses.replace(method, **{cls.level: min(bits, high)})


@dataclass(frozen=True)
class Leveled(Method):
    """A method with one setting that is the bits held per original number."""

    def at(self, bits: float) -> Self:
        """Set the level itself, as far up as it goes."""
        return self._turn(self, bits)
