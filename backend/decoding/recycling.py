"""A drafter that keeps what a model nearly wrote: candidates by token, drafted as a tree.

Token Recycling, arXiv 2408.08696. It outlives a text, so that later ones start with what earlier
ones left.
"""

from __future__ import annotations

import heapq
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from backend.decoding.drafter import Draft, Drafter

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

DECAY = 0.4  # how much likelier a candidate is than the one ranked below it


class RecyclingDrafter(Drafter):
    """The `width` likeliest tokens after each token, as the model saw them last."""

    def __init__(self, vocabulary_size: int, width: int, nodes: int) -> None:
        super().__init__()
        kind = np.uint16 if vocabulary_size <= 2**16 else np.int32
        self.matrix: NDArray[np.integer] = np.zeros((vocabulary_size, width), kind)
        self.known = np.zeros(vocabulary_size, np.bool_)
        self.nodes = nodes

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return self.matrix.nbytes + self.known.nbytes

    def learn(
        self,
        tokens: Sequence[int],
        logits: torch.Tensor,
        parents: Sequence[int] | None = None,  # noqa: ARG002 - one token before is enough
    ) -> None:
        """Replace the candidates of every token that was fed, refused drafts included."""
        found = logits.topk(self.matrix.shape[1], dim=-1).indices.cpu().numpy()
        self.matrix[list(tokens)] = found
        self.known[list(tokens)] = True

    def propose(self, tokens: Sequence[int], limit: int) -> Draft:
        """Candidates of the last token, their candidates, and so on, the likely ranks deepest."""
        drafted: list[int] = []
        parents: list[int] = []
        place = {-1: -1}
        for node, (parent, rank) in enumerate(template(min(self.nodes, limit), self._width)):
            if parent not in place:
                continue
            before = tokens[-1] if parent == -1 else drafted[place[parent]]
            if not self.known[before]:
                continue
            place[node] = len(drafted)
            parents.append(place[parent])
            drafted.append(int(self.matrix[before, rank]))
        return Draft(tuple(drafted), tuple(parents))

    @property
    def _width(self) -> int:
        return self.matrix.shape[1]


@cache
def template(nodes: int, width: int) -> tuple[tuple[int, int], ...]:
    """The parent and rank of each node of a fixed tree, breadth first, without looking at tokens.

    A path is as likely as the product over its ranks, and a rank `DECAY` times as likely as the
    one above it; the tree holds the `nodes` likeliest paths, so that it is deep where ranks are
    high and shallow elsewhere, as the tree of the paper is.
    """
    waiting: list[tuple[float, tuple[int, ...]]] = [(-1.0, (0,))]
    chosen: list[tuple[int, ...]] = []
    while waiting and len(chosen) < nodes:
        chance, path = heapq.heappop(waiting)
        chosen.append(path)
        heapq.heappush(waiting, (chance * (1 - DECAY), (*path, 0)))
        if path[-1] + 1 < width:
            heapq.heappush(waiting, (chance * DECAY, (*path[:-1], path[-1] + 1)))
    chosen.sort(key=lambda path: (len(path), path))
    place = {path: index for index, path in enumerate(chosen)}
    return tuple((place.get(path[:-1], -1), path[-1]) for path in chosen)
