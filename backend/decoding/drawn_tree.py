"""Trees that a second model draws, the tokens after one token without taking any twice.

Recursive speculative decoding, arXiv 2402.14160, gives every token of a depth as many; DySpec,
arXiv 2410.11744, draws where it is likely to be reached. `sampling.chosen` verifies both.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from backend.decoding.drafter import Draft
from backend.decoding.sampling import chances, quantile
from backend.decoding.second_model import ModelDrafter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from backend.decoding.model import LanguageModel

    Chances = NDArray[np.float64]


class Node(NamedTuple):
    """A token of a tree that is being drawn: where it stands and how likely it is reached."""

    index: int
    depth: int
    reached: float


class TreeDrafter(ModelDrafter):
    """Draws a tree with `model`, one depth after another, of at most `nodes` tokens."""

    def __init__(self, model: LanguageModel, depth: int, nodes: int) -> None:
        super().__init__(model, depth)
        self.nodes = nodes

    @abc.abstractmethod
    def wanted(self, node: Node, drawn: int, left: float) -> bool:
        """Whether to draw another token after `node`, which has `drawn` already.

        Decided before the token is known, so that no draw is ever taken back.

        Args:
            node: whose next tokens are drawn.
            drawn: tokens drawn there.
            left: how likely none of them is kept, by the second model's own chances.
        """

    @torch.inference_mode()
    def propose(self, tokens: Sequence[int], limit: int) -> Draft:
        """A tree that may follow the text; drawn, where the first model draws."""
        most, session = min(limit, self.nodes), self._session
        if session is None or most < 1:
            return Draft()
        logits = self._caught_up(tokens)[None]
        growing = Growing(most, self._writing.temperature, self._draws)
        level = [Node(-1, 0, 1.0)]
        room = session.croppable()
        while level:
            level = [
                child
                for node, row in zip(level, logits, strict=True)
                for child in self._after(growing, node, row)
            ]
            full = len(growing.tokens) >= min(most, room)
            if not level or full or level[0].depth >= self.length:
                break
            logits = self._read(growing)[[node.index for node in level]]
        return growing.draft()

    def _after(self, growing: Growing, node: Node, logits: torch.Tensor) -> list[Node]:
        """Tokens drawn after a node, each given to `growing`."""
        q, left, found = growing.start(logits), 1.0, []
        most = 1 if not self._session.branching else int((q > 0).sum())
        while len(found) < most and growing.room and self.wanted(node, len(found), left):
            index, chance = growing.draw(node.index, q)
            found.append(Node(index, node.depth + 1, node.reached * left * chance))
            left *= 1 - chance
            q = growing.without(q, growing.tokens[index])
        return found

    def _read(self, growing: Growing) -> torch.Tensor:
        """Logits of the second model at every token of the tree, which leaves no trace."""
        session, before = self._session, self._session.length
        fed = torch.tensor([growing.tokens], device=self.model.device)
        parents = growing.parents if session.branching else None
        logits = session.feed(fed, parents)[0]
        session.crop(before)
        return logits


class Growing:
    """A tree so far."""

    def __init__(self, most: int, temperature: float, draws: np.random.Generator) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self._drawn: list[Chances] = []
        self._most, self._temperature, self._draws = most, temperature, draws

    @property
    def room(self) -> int:
        """How many tokens may still be drawn."""
        return self._most - len(self.tokens)

    @property
    def drawing(self) -> bool:
        """Whether tokens are drawn by chance."""
        return self._temperature > 0

    def start(self, logits: torch.Tensor) -> Chances:
        """Chances of what follows; without a temperature those of the model as it is."""
        return chances(logits, self._temperature or 1.0)

    def draw(self, parent: int, q: Chances) -> tuple[int, float]:
        """Draw a token, or take the likeliest; returns its index and its chance."""
        if self._temperature:
            token = quantile(q, float(self._draws.random()))
            self._drawn.append(q)
        else:
            token = int(q.argmax())
        self.tokens.append(token)
        self.parents.append(parent)
        return len(self.tokens) - 1, float(q[token])

    def take(self, parent: int, token: int) -> int:
        """Put in a token that is certain; returns its index."""
        certain = np.zeros_like(self._drawn[0])
        certain[token] = 1.0
        self._drawn.append(certain)
        self.tokens.append(token)
        self.parents.append(parent)
        return len(self.tokens) - 1

    @staticmethod
    def without(q: Chances, token: int) -> Chances:
        """Chances of the next draw, which takes another token."""
        rest = q.copy()
        rest[token] = 0.0
        total = rest.sum()
        return rest / total if total > 0 else rest

    def draft(self) -> Draft:
        """All of it."""
        drawn = tuple(self._drawn) if self._temperature else None
        return Draft(tuple(self.tokens), tuple(self.parents), drawn)


class EvenTreeDrafter(TreeDrafter):
    """As many tokens after each token of a depth: `first` after the text, `inner` further on."""

    def __init__(self, model: LanguageModel, depth: int, first: int, inner: int) -> None:
        nodes = sum(first * inner**level for level in range(depth))
        super().__init__(model, depth, nodes)
        self._first, self._inner = first, inner

    def wanted(self, node: Node, drawn: int, left: float) -> bool:  # noqa: ARG002 - all alike
        """As many as were asked for."""
        return drawn < (self._inner if node.depth else self._first)


class DynamicTreeDrafter(TreeDrafter):
    """Tokens where they are likely to be reached: at least `threshold`, by the draft's chances."""

    def __init__(self, model: LanguageModel, depth: int, nodes: int, threshold: float) -> None:
        super().__init__(model, depth, nodes)
        self._threshold = threshold

    def wanted(self, node: Node, drawn: int, left: float) -> bool:
        """The first token after the text, and every one that is asked likely enough."""
        first = node.index < 0 and not drawn
        return first or node.reached * left >= self._threshold
