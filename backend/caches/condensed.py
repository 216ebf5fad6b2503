"""Few tokens of each head, into which others were merged (EMS, arXiv 2412.08521).

Every few tokens a head weighs what it holds: by the attention of all tokens so far and by that of
the newest. It keeps the best, merges the next into those whose keys are most alike, and drops the
rest; what is like none joins a class that stands for nothing, so that all heads work at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from backend.caches.attention import Queries, mix, scores, weights
from backend.caches.base import AskedLayerCache, DenseLayerCache
from backend.caches.condensed_codec import SLACK, CondensedCodec


class CondensedLayerCache(AskedLayerCache):
    """Tokens still there, the attention each got, and how the newest looked at them."""

    why = "This cache keeps what queries look at"

    def __init__(self, codec: CondensedCodec) -> None:
        self.codec = codec
        self.held = DenseLayerCache()
        self.gone = 0
        self.given: Tensor | None = None
        """Attention [batch, heads, tokens] that each got until the last look, float32."""
        self.asked: Tensor | None = None
        """How many tokens could give it any, int32, beside it."""
        self.rows: Tensor | None = None
        """Attention [batch, heads, new tokens, tokens] since then, bfloat16."""

    def attend(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        """Answer from all that is held, and condense it where a look is due."""
        before, held = self.length, self.held.length
        keys, values = self.held.append(keys, values)
        shares = weights(scores(queries, keys), queries.softcap, queries.seen(held))
        found = mix(shares, values)
        self._note(shares.mean(2))
        if before // SLACK != self.length // SLACK:
            self._look(self.length % SLACK)
        return found

    def _note(self, fresh: Tensor) -> None:
        """Remember how new tokens looked at all, [batch, heads, new tokens, tokens]."""
        tokens = fresh.shape[3]
        if self.given is None:
            self.given = fresh.new_zeros(*fresh.shape[:2], 0)
            self.asked = self.given.int()
            self.rows = fresh.new_zeros(*fresh.shape[:2], 0, 0, dtype=torch.bfloat16)
        self.given, self.asked = _wide(self.given, tokens), _wide(self.asked, tokens)
        self.rows = torch.cat([_wide(self.rows, tokens), fresh.to(torch.bfloat16)], 2)

    def _look(self, since: int) -> None:
        """Weigh what is held by all rows but the last `since`, and condense what is too much."""
        rows, tokens = self.rows, self.held.length
        until = max(0, rows.shape[2] - since)
        looked = rows[:, :, :until].float()
        self.given = self.given + looked.sum(2)
        first = tokens - rows.shape[2]  # the token whose row is the first one
        places = torch.arange(tokens, device=rows.device)
        self.asked = self.asked + (first + until - places).clamp(0, until).int()
        self.rows = rows[:, :, until:].clone()
        count = tokens - since - self.codec.window
        if count > self.codec.kept:
            self._condense(looked[:, :, -SLACK:, :count].mean(2), count)

    def _condense(self, local: Tensor, count: int) -> None:
        """Make the first `count` tokens those that are kept, given the newest rows' mean look."""
        codec = self.codec
        wide = self.given[:, :, :count] / self.asked[:, :, :count].clamp(min=1)
        worth = sum(part / part.amax(-1, keepdim=True).clamp(min=1e-9) for part in (wide, local))
        order = worth.argsort(dim=-1, descending=True, stable=True)
        kept = order[..., : codec.kept].sort(-1).values
        merged = order[..., codec.kept : codec.kept + int(codec.merged * codec.kept)]
        keys, values = (part[:, :, :count].float() for part in (self.held.keys, self.held.values))
        home = homes(keys, kept, merged, codec.alike)
        weight = worth.unsqueeze(-1).clamp(min=1e-30)  # a token that nothing looked at stays itself
        divisor = gathered(weight, kept, merged, home)
        self.held.put(
            *(
                torch.cat(
                    [
                        (gathered(part * weight, kept, merged, home) / divisor).to(whole.dtype),
                        whole[:, :, count:],
                    ],
                    2,
                )
                for part, whole in ((keys, self.held.keys), (values, self.held.values))
            )
        )
        given = gathered(self.given[:, :, :count, None], kept, merged, home)[..., 0]
        self.given = torch.cat([given, self.given[:, :, count:]], 2)
        asked = self.asked.gather(2, kept)
        self.asked = torch.cat([asked, self.asked[:, :, count:]], 2)
        seen = gathered(self.rows[..., :count].float().mT, kept, merged, home).mT
        self.rows = torch.cat([seen.to(torch.bfloat16), self.rows[..., count:]], 3)
        self.gone += count - codec.kept

    def pick(self, start: int, places: Sequence[int]) -> None:
        """Cut off the end.

        Raises:
            ValueError: what was there has been condensed.
        """
        if self.gone and start < self.codec.kept + self.gone:
            raise ValueError(
                f"Tokens before {self.codec.kept + self.gone} were condensed, so a cache cannot be "
                f"cut to {start}; ask `croppable` first."
            )
        before, start = self.held.length, start - self.gone
        self.held.pick(start, places)
        if self.given is None or start >= before:
            return
        kept = [*range(start), *(start + place for place in places)]
        index = torch.tensor(kept, dtype=torch.int64, device=self.given.device)
        first = before - self.rows.shape[2]
        rows = index[index >= first] - first
        self.rows = self.rows.index_select(2, rows).index_select(3, index)
        self.given, self.asked = self.given[:, :, index], self.asked[:, :, index]

    @property
    def croppable(self) -> int:
        """Fewer than lead to the next look."""
        return SLACK - 1 - self.length % SLACK

    def tensors(self) -> Iterator[Tensor]:
        """The tokens still there, and what is known of each."""
        yield from self.held.tensors()
        if self.given is not None:
            yield from (self.given, self.asked, self.rows)

    @property
    def length(self) -> int:
        """Tokens taken in."""
        return self.held.length + self.gone


def homes(keys: Tensor, kept: Tensor, merged: Tensor, alike: float) -> Tensor:
    """Which of the kept tokens each merged one joins, [batch, heads, merged].

    The one with the most alike key, or the class behind the last, which stands for nothing.

    Args:
        keys: [batch, heads, tokens, head_dim].
        kept: places [batch, heads, kept] of tokens.
        merged: places [batch, heads, merged] of others.
        alike: least cosine.
    """
    unit = torch.nn.functional.normalize(keys, dim=-1)
    near = _at(unit, merged) @ _at(unit, kept).mT
    if not merged.shape[2]:
        return merged
    best, which = near.max(-1)
    return torch.where(best >= alike, which, kept.shape[2])


def gathered(states: Tensor, kept: Tensor, merged: Tensor, home: Tensor) -> Tensor:
    """Sums [batch, heads, kept, channels] of what is kept and of what joins it."""
    own = _at(states, kept)
    room = torch.cat([own, torch.zeros_like(own[:, :, :1])], 2)
    index = home.unsqueeze(-1).expand(*home.shape, states.shape[3])
    return room.scatter_add(2, index, _at(states, merged))[:, :, :-1]


def _at(states: Tensor, places: Tensor) -> Tensor:
    """States [batch, heads, places, channels] at places [batch, heads, places]."""
    return states.gather(2, places.unsqueeze(-1).expand(*places.shape, states.shape[3]))


def _wide(part: Tensor, tokens: int) -> Tensor:
    """The same with zeros for tokens that came since."""
    return torch.nn.functional.pad(part, (0, tokens - part.shape[-1]))
