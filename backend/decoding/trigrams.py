"""A drafter that nears what a model thinks after each two tokens, and searches that for a tree.

ADED, arXiv 2407.12021: chances after two tokens are drawn towards the model's own at every
step, and a search that weighs what it found against what it has not tried makes the draft. What
one text left serves the next.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from backend.decoding.drafter import Draft, Drafter, Writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

EXPLORE, SLOWLY = 1.25, 19652  # how much untried tokens weigh, and after how many visits more so
VISITS = 2  # for each token of a draft, after which the search ends
TOGETHER = 64  # tokens whose chances are made at once
ENTRY = 64  # bytes of a key and its row in a dictionary


class TrigramDrafter(Drafter):
    """The likeliest tokens after each two tokens, with chances that follow the model.

    Args:
        vocabulary_size: ids from here on are none.
        width: tokens kept after two.
        nodes: tokens of a draft's tree.
        keep: how much of an old chance stays when the model is heard again.
        contexts: pairs of tokens that are remembered; beyond, the oldest give way.
    """

    def __init__(
        self, vocabulary_size: int, *, width: int, nodes: int, keep: float, contexts: int
    ) -> None:
        super().__init__()
        self.nodes, self.keep, self.contexts = nodes, keep, contexts
        self._vocabulary, self._width = vocabulary_size, width
        self._row: dict[int, int] = {}
        self._tokens = np.zeros((0, width), np.int32)
        self._chances = np.zeros((0, width), np.float32)
        self._keys = np.zeros(0, np.int64)
        self._oldest = 0
        self._before: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        keys = sys.getsizeof(self._row) + ENTRY * len(self._row)
        return self._tokens.nbytes + self._chances.nbytes + self._keys.nbytes + keys

    def begin(self, writing: Writing) -> None:  # noqa: ARG002
        """A new text begins; what was learned of others stays."""
        self._before = None

    def learn(
        self, tokens: Sequence[int], logits: torch.Tensor, parents: Sequence[int] | None = None
    ) -> None:
        """Draw the chances after each token and the one it follows towards the model's."""
        parts = logits.split(TOGETHER)  # chances of a long prompt's whole vocabulary take gigabytes
        best = [part.float().softmax(-1).topk(self._width, dim=-1) for part in parts]
        found, chances = (np.concatenate([one[place].cpu() for one in best]) for place in (1, 0))
        for index, token in enumerate(tokens):
            parent = index - 1 if parents is None else parents[index]
            before = tokens[parent] if parent >= 0 else self._before
            if before is not None:
                self._hear(int(before), int(token), found[index], chances[index])

    def after(self, before: int, token: int) -> dict[int, float]:
        """Chances of the likeliest tokens after two; empty where the model was never heard."""
        row = self._row.get(before * self._vocabulary + token)
        if row is None:
            return {}
        pairs = zip(self._tokens[row].tolist(), self._chances[row].tolist(), strict=True)
        return {one: chance for one, chance in pairs if chance > 0}

    def _hear(
        self, before: int, token: int, found: NDArray[np.int64], chances: NDArray[np.float32]
    ) -> None:
        old = self.after(before, token)
        row = self._place(before * self._vocabulary + token)
        if old:
            mixed = {one: self.keep * chance for one, chance in old.items()}
            for one, chance in zip(found.tolist(), chances.tolist(), strict=True):
                mixed[one] = mixed.get(one, 0.0) + (1 - self.keep) * chance
            ranked = sorted(mixed.items(), key=lambda pair: -pair[1])[: self._width]
            found = np.array([one for one, _ in ranked])
            chances = np.array([chance for _, chance in ranked])
        self._tokens[row], self._chances[row] = found, chances

    def _place(self, key: int) -> int:
        """The row of two tokens, an old one's where there is no room."""
        if key in self._row:
            return self._row[key]
        if len(self._row) >= self.contexts:  # rows are filled in turn, so the oldest come in turn
            row = self._oldest
            self._oldest = (row + 1) % self.contexts
            del self._row[int(self._keys[row])]
        else:
            row = len(self._row)
            if row == len(self._tokens):
                room = min(self.contexts, max(256, 2 * row)) - row
                blank = np.zeros((room, self._width))
                self._tokens = np.concatenate([self._tokens, blank.astype(np.int32)])
                self._chances = np.concatenate([self._chances, blank.astype(np.float32)])
                self._keys = np.concatenate([self._keys, np.zeros(room, np.int64)])
        self._row[key], self._keys[row] = row, key
        return row

    def propose(self, tokens: Sequence[int], limit: int) -> Draft:
        """The tokens that the search reached, each behind what it follows."""
        count = min(self.nodes, limit)
        self._before = int(tokens[-2]) if len(tokens) > 1 else None
        if self._before is None or count < 1:
            return Draft()
        root = _Place(-1, self._before, int(tokens[-1]), 1.0)
        drafted: list[int] = []
        parents: list[int] = []
        for _ in range(VISITS * count):
            if len(drafted) == count:
                break
            self._visit(root, drafted, parents)
        return Draft(tuple(drafted), tuple(parents))

    def _visit(self, root: _Place, drafted: list[int], parents: list[int]) -> None:
        """Go down by the best bound, draft the first token not yet drafted, and tell the way."""
        place, way = root, [root]
        while True:
            if place.chances is None:
                place.chances = self.after(place.before, place.token)
            if not place.chances:
                break
            token = place.best()
            child = place.children.get(token)
            if child is None:
                chance = place.reached * place.chances[token]
                child = _Place(len(drafted), place.token, token, chance)
                place.children[token] = child
                drafted.append(token)
                parents.append(place.index)
                way.append(child)
                break
            place = child
            way.append(child)
        value = way[-1].reached
        for one in way:
            one.visits += 1
            one.total += value


@dataclass
class _Place:
    """A token of the tree: where it is drafted, what stands before it and how often it was met."""

    index: int
    before: int
    token: int
    reached: float
    chances: dict[int, float] | None = None
    children: dict[int, _Place] = field(default_factory=dict)
    visits: int = 0
    total: float = 0.0

    def best(self) -> int:
        """The next token with the highest bound: its mean value and what may be hoped of it."""
        weight = EXPLORE + math.log((self.visits + SLOWLY + 1) / SLOWLY)
        hope = weight * math.sqrt(1 + self.visits)

        def bound(token: int) -> float:
            child = self.children.get(token)
            if child is None:
                return hope * self.chances[token]
            return child.total / child.visits + hope * self.chances[token] / (1 + child.visits)

        return max(self.chances, key=bound)
