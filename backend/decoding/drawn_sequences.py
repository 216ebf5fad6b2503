"""Several texts that a second model draws independently of each other, held as one tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from backend.decoding.drafter import Draft
from backend.decoding.drawn_tree import EvenTreeDrafter
from backend.decoding.sampling import chances, quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from backend.decoding.model import LanguageModel


@dataclass
class _Tree:
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)


class SequencesDrafter(EvenTreeDrafter):
    """Draws `count` texts of `length` tokens; what they begin with in common is held once.

    Where nothing is drawn by chance, the likeliest tokens after the text are taken, and after
    each its likeliest one. A model that takes no positions from outside gets one text.
    """

    def __init__(self, model: LanguageModel, count: int, length: int) -> None:
        super().__init__(model, length, count, 1)
        self.count = count

    @torch.inference_mode()
    def propose(self, tokens: Sequence[int], limit: int) -> Draft:
        """Texts that may follow, as the first model draws or chooses."""
        if self._session is None or limit < 1 or not self._writing.temperature:
            return super().propose(tokens, limit)
        count, length = self._shape(limit)
        q = chances(self._caught_up(tokens), self._writing.temperature)
        length = min(length, 1 + self._session.croppable() // count)
        tree, drawn, found = _Tree(), [], []
        at, known = [-1] * count, {-1: q}
        for depth in range(length):
            self._extend(tree, at, known, (drawn, found))
            if depth + 1 < length:
                logits = self._read(tree)
                known = {node: chances(logits[node], self._writing.temperature) for node in at}
        return Draft(tuple(tree.tokens), tuple(tree.parents), tuple(found), tuple(drawn))

    def _shape(self, limit: int) -> tuple[int, int]:
        """How many texts and how long, decided before any token is known."""
        verifying = self._writing.session
        branches = self._session.branching and (verifying is None or verifying.branching)
        count = min(self.count if branches else 1, limit)
        return count, min(self.length, limit // count)

    def _extend(
        self,
        tree: _Tree,
        at: list[int],
        known: dict[int, NDArray],
        notes: tuple[list[int], list[NDArray]],
    ) -> None:
        """Draw the next token of every text, from what is known at the node where it stands."""
        drawn, found = notes
        places: dict[tuple[int, int], int] = {}
        for text, parent in enumerate(at):
            token = quantile(known[parent], float(self._draws.random()))
            if (parent, token) not in places:
                places[parent, token] = len(tree.tokens)
                tree.tokens.append(token)
                tree.parents.append(parent)
                found.append(known[parent])
            at[text] = places[parent, token]
            drawn.append(at[text])
