"""The port of speculative decoding: what guesses tokens. Imports no torch; verifies nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from backend.decoding.model import Session


@dataclass(frozen=True)
class Draft:
    """Guesses of how a text goes on: a tree of tokens, a chain being the plainest.

    Attributes:
        tokens: ids.
        parents: index of the token that each follows, an earlier one; -1 for the text's last.
        chances: the probabilities [V] each token was drawn from, given the tokens drawn before it
            after the same one, none of them twice; None for tokens chosen without chance.
        drawn: where tokens were drawn independently of each other instead, their indices in
            order, as often as each was drawn; None otherwise.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    chances: tuple[NDArray[np.float64], ...] | None = None
    drawn: tuple[int, ...] | None = None

    @classmethod
    def chain(
        cls, tokens: Sequence[int], chances: Sequence[NDArray[np.float64]] | None = None
    ) -> Self:
        """One token after another."""
        drawn = None if chances is None else tuple(chances)
        return cls(tuple(tokens), tuple(range(-1, len(tokens) - 1)), drawn)

    @property
    def is_chain(self) -> bool:
        """Whether every token follows the one before it."""
        return self.parents == tuple(range(-1, len(self.tokens) - 1))

    def usable(self, nodes: int, depth: int, vocabulary_size: int, *, branches: bool) -> Draft:
        """The part that can be verified.

        Args:
            nodes: most tokens.
            depth: most tokens one after another.
            vocabulary_size: ids from here on are none.
            branches: whether a token may have several to follow it; else the first one stays.
        """
        place = {-1: -1}
        depths = {-1: 0}
        taken: set[int] = set()
        kept: list[int] = []
        for index, (token, parent) in enumerate(zip(self.tokens, self.parents, strict=True)):
            good = parent in place and depths[parent] < depth and 0 <= token < vocabulary_size
            if not good or len(kept) == nodes or (not branches and parent in taken):
                continue
            taken.add(parent)
            place[index], depths[index] = len(kept), depths[parent] + 1
            kept.append(index)
        chances = None if self.chances is None else tuple(self.chances[index] for index in kept)
        drawn = self.drawn
        if drawn is not None:
            drawn = tuple(place[index] for index in drawn if index in place)
        return Draft(
            tuple(int(self.tokens[index]) for index in kept),
            tuple(place[self.parents[index]] for index in kept),
            chances,
            drawn,
        )

    def drafts(self) -> dict[int, list[int]]:
        """Indices of the tokens drafted after each, in order, by that one's index."""
        found: dict[int, list[int]] = {}
        for index in range(len(self.tokens)) if self.drawn is None else self.drawn:
            found.setdefault(self.parents[index], []).append(index)
        return found


@dataclass(frozen=True)
class Writing:
    """What a drafter is told when a text begins.

    Attributes:
        session: of the model that verifies; a drafter may feed it and must crop what it fed.
        length: most tokens it will hold.
        temperature: of sampling; 0 for the first choice always.
        seed: of what is drawn.
    """

    session: Session
    length: int
    temperature: float = 0.0
    seed: int = 0


@dataclass
class Drafter(ABC):
    """Guesses how a sequence goes on.

    A drafter may keep what it learned from earlier texts, as long as the guess for one text
    needs nothing else; a wrong guess costs time, never correctness.
    """

    def begin(self, writing: Writing) -> None:  # noqa: B027 - most need to know nothing
        """A new text begins; its prompt has been fed."""

    def learn(  # noqa: B027
        self, tokens: Sequence[int], logits: Tensor, parents: Sequence[int] | None = None
    ) -> None:
        """See the logits [t, V] that the model gave at `tokens`, prompt and drafts included.

        `parents` has the index of the token that each followed, -1 for the text's last; None
        where each followed the one before it.
        """

    @abstractmethod
    def propose(self, tokens: Sequence[int], limit: int) -> Draft:
        """Return at most `limit` tokens that may follow `tokens`; none is an honest answer."""


@dataclass
class Silent(Drafter):
    """Never guesses: the plain decode loop, as the baseline of every other drafter."""

    def propose(self, tokens: Sequence[int], limit: int) -> Draft:  # noqa: ARG002
        """Return nothing."""
        return Draft()
