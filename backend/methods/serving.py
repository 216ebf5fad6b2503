"""Methods that leave the weights alone: how keys and values are held, text is read or written."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar, Self

from backend.errors import ModelError
from backend.methods.method import Leveled, Method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.caches.codecs import Codec
    from backend.decoding.drafter import Drafter
    from backend.decoding.model import LanguageModel
    from backend.methods.anatomy import Anatomy


class CacheMethod(Leveled):
    """Holds keys and values in fewer bits."""

    @abc.abstractmethod
    def codec(self, heads: int, head_dim: int) -> Codec:
        """What encodes the keys and values of layers with `heads` heads of `head_dim`."""


class ServeMethod(Method):
    """Changes how text is read or written, and neither what is held nor what is said."""

    def at(self, bits: float) -> Self:  # noqa: ARG002 - what is held stays as it is
        """Itself: nothing is held in fewer bits."""
        return self


class PrefillMethod(ServeMethod):
    """Lays several prompts out so that they are read at once."""

    models: ClassVar[tuple[str, ...]] = ()
    """Types of model whose attention keeps prompts apart as it is told."""

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a model whose attention cannot be told.

        Raises:
            ModelError: it is of a type that the method does not know.
        """
        if anatomy.kind not in self.models:
            known = ", ".join(self.models)
            raise ModelError(
                f"{self.key()} knows {known}, not {anatomy.kind}; leave it out, and prompts are "
                "read one by one."
            )

    @abc.abstractmethod
    def rows(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which prompts share a row, one behind the other, by their places.

        Args:
            lengths: of the prompts, in tokens.
        """


class DecodeMethod(ServeMethod):
    """Proposes tokens that the model then verifies, so that the output stays the same."""

    @property
    def draft_recipe(self) -> str:
        """What makes the second, smaller model of the same text that drafts; empty for none."""
        return ""

    @abc.abstractmethod
    def drafter(self, model: LanguageModel, draft: LanguageModel | None = None) -> Drafter:
        """What drafts for `model`, with a second model where `draft_recipe` names one."""
