"""The port of speculative decoding: what guesses tokens. Imports no torch; verifies nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Drafter(ABC):
    """Guesses how a sequence goes on.

    A drafter may keep what it learned from earlier calls, as long as the guess for one sequence
    needs nothing else; a wrong guess costs time, never correctness.
    """

    @abstractmethod
    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Return at most `limit` ids that may follow `tokens`; none is an honest answer."""


@dataclass
class Silent(Drafter):
    """Never guesses: the plain decode loop, as the baseline of every other drafter."""

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:  # noqa: ARG002
        """Return nothing."""
        return []
