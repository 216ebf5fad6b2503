"""Which heads keep the whole text, told from how they read a text that repeats itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from backend.caches.seen import FittedCodec

if TYPE_CHECKING:
    from torch import Tensor

    from backend.caches.base import LayerCache
    from backend.caches.seen import Look, Seen

REPEATS = 4
LONGEST = 128  # tokens that are repeated
ROOM = 3  # tokens whose bytes the sums of all that left take, in float32, and the marks


@dataclass(frozen=True)
class HeadsCodec(FittedCodec):
    """Shares of heads that keep everything, and what the others keep.

    Attributes:
        echo: share of heads kept whole because they look at the same token earlier.
        induction: share kept because they look at what followed the same token.
        first: first tokens that the others keep.
        window: newest tokens that they keep.
        slack: tokens that leave together, so that drafts can be taken back without a trace.
        context: tokens at which the budget is met.
    """

    turns: ClassVar[bool] = False

    echo: float
    induction: float
    first: int
    window: int
    slack: int
    context: int

    def layer(self, index: int) -> LayerCache:
        """An empty cache for layer `index`."""
        from backend.caches.heads import HeadsLayerCache

        return HeadsLayerCache(self, index)

    def bits(self, heads: int, head_dim: int) -> float:  # noqa: ARG002 - whole heads
        """What the heads add that keep everything: those that were found, else as many as may."""
        if not self.tables:
            return 16 * (self.echo + self.induction)
        kept = [int(one.sum()) for one in self.tables.values()]
        return 16 * sum(kept) / sum(one.numel() for one in self.tables.values())

    def learn(self, look: Look) -> dict[str, Tensor]:
        """Marks of each layer's heads that keep the whole text, uint8.

        Random tokens are read several times over. A head's scores are the attention that it gives
        to earlier places of the token it stands at, and to the places behind those; a key-value
        head takes the highest of the query heads that it serves.
        """
        import torch

        length = max(2, min(LONGEST, look.longest // REPEATS))
        generator = torch.Generator().manual_seed(0)
        once = torch.randint(look.vocabulary_size, (1, length), generator=generator)
        found = look(once.repeat(1, REPEATS))
        ways = [
            {layer: attention_to(seen, length, behind) for layer, seen in found.items()}
            for behind in (0, 1)
        ]
        places = [(layer, head) for layer, one in ways[0].items() for head in range(len(one))]
        count = int((self.echo + self.induction) * len(places) + 1e-9)
        echoing = min(count, round(self.echo * len(places)))
        chosen = _best(ways[0], places, echoing)
        chosen |= _best(ways[1], [one for one in places if one not in chosen], count - len(chosen))
        return {
            f"{layer}.heads": torch.tensor(
                [(layer, head) in chosen for head in range(len(one))], dtype=torch.uint8
            )
            for layer, one in ways[0].items()
        }


def attention_to(seen: Seen, length: int, behind: int) -> list[float]:
    """Mean attention that each key-value head gives to places `length` back and `behind` on."""
    from backend.caches.attention import scores, weights

    queries = seen.queries
    shares = weights(scores(queries, seen.keys), queries.softcap, queries.new())
    found = shares.new_zeros(shares.shape[:3])
    for back in range(length, shares.shape[3], length):
        found += shares.diagonal(behind - back, 3, 4)[..., behind:].sum(-1)
    return (found / (shares.shape[3] - length)).mean(0).amax(1).tolist()


def _best(
    scores: dict[int, list[float]], places: list[tuple[int, int]], count: int
) -> set[tuple[int, int]]:
    ranked = sorted(places, key=lambda place: -scores[place[0]][place[1]])
    return set(ranked[: max(0, count)])
