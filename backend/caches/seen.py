"""What a cache that is fitted to a model sees of it beforehand; runs nothing itself."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from backend.caches.codecs import Codec
from backend.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from backend.caches.attention import Queries

MOST_WINDOWS = 32  # of calibration that are looked at


@dataclass(frozen=True)
class Seen:
    """What the attention of one layer was handed when some texts were read from their first token.

    Attributes:
        queries: of all tokens, positions turned in.
        keys: [texts, heads, tokens, head_dim], positions turned in.
        values: beside them.
    """

    queries: Queries
    keys: Tensor
    values: Tensor

    def unturned(self) -> Tensor:
        """The keys as they were before their positions were turned in."""
        if self.queries.turn is None:
            return self.keys
        return self.queries.turn(self.keys, -self.queries.positions)


class Look(Protocol):
    """A model that may be looked at while it reads.

    Attributes:
        windows: calibration tokens [windows, length].
        vocabulary_size: ids from here on are none.
        longest: tokens that a text may have.
    """

    windows: Tensor
    vocabulary_size: int
    longest: int

    def __call__(self, tokens: Tensor) -> dict[int, Seen]:
        """What each layer that is treated saw of texts [texts, tokens], by its index."""
        ...


@dataclass(frozen=True)
class FittedCodec(Codec):
    """A codec that looks at a model once, and from then on knows numbers of each layer.

    Attributes:
        tables: what it found, by `layer.name`; empty before it looked.
    """

    turns: ClassVar[bool] = True

    tables: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True, compare=False)

    @abc.abstractmethod
    def learn(self, look: Look) -> dict[str, Tensor]:
        """The tables of all layers; they are written beside the model."""

    def fitted(self, tables: Mapping[str, Tensor]) -> Self:
        """The same, knowing what was found."""
        return replace(self, tables=tables)

    def table(self, layer: int, name: str) -> Tensor:
        """What was found of a layer.

        Raises:
            ModelError: the model was not looked at with this codec.
        """
        found = self.tables.get(f"{layer}.{name}")
        if found is None:
            raise ModelError(
                f"Nothing is known of the cache of layer {layer}: its {name} was not written "
                "beside the model. Compress the model again."
            )
        return found
