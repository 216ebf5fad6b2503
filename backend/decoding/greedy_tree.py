"""Trees of a second model's likeliest tokens and one drawn among all others.

Greedy draft sampling of Hu et al., arXiv 2502.18779: of the tokens after one token all but one are
the likeliest, so that only the last is left to chance. The one that was drawn is held against the
model's chances first; what it leaves of them still has all that they give to the likeliest, so
that some draft is kept as often as can be: sum of p over the likeliest, and of min(p, q) over the
rest, q being the draft's chances there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backend.decoding.drawn_tree import EvenTreeDrafter, Growing, Node

if TYPE_CHECKING:
    import torch


class GreedyTreeDrafter(EvenTreeDrafter):
    """As many tokens after each token of a depth, one of them drawn and the others the likeliest.

    Where nothing is drawn by chance, all are the likeliest.
    """

    def _after(self, growing: Growing, node: Node, logits: torch.Tensor) -> list[Node]:
        """The tokens after a node, the one drawn first, as it is verified first."""
        if not growing.drawing:
            return super()._after(growing, node, logits)
        q = growing.start(logits)
        wanted = self._inner if node.depth else self._first
        count = min(wanted if self._session.branching else 1, growing.room, int((q > 0).sum()))
        if count < 1:
            return []
        likeliest = np.argsort(-q, kind="stable")[: count - 1]
        rest = q.copy()
        rest[likeliest] = 0.0
        rest /= rest.sum()
        index, chance = growing.draw(node.index, rest)
        found = [Node(index, node.depth + 1, node.reached * chance)]
        for token in likeliest.tolist():
            index = growing.take(node.index, token)
            found.append(Node(index, node.depth + 1, node.reached * float(q[token])))
        return found
