"""Attention over what a cache holds, for caches that answer queries themselves; knows no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Turn = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Queries:
    """What new tokens ask of the keys.

    Attributes:
        states: [batch, query heads, tokens, head_dim]; key-value heads serve equal groups of them.
        scale: what the products are multiplied by.
        positions: [tokens], of each token in its text.
        among: [tokens, tokens], which of the new tokens each may see; None for all up to itself.
        softcap: bound that the scores are bent to; None for none.
        turn: turns states [..., tokens, head_dim] by [tokens] positions as the model's rotary
            embedding would; None where the model has none.
    """

    states: Tensor
    scale: float
    positions: Tensor
    among: Tensor | None = None
    softcap: float | None = None
    turn: Turn | None = None

    @property
    def count(self) -> int:
        """New tokens."""
        return self.states.shape[2]

    def new(self) -> Tensor:
        """Which of the new tokens each new token may see, [tokens, tokens]."""
        if self.among is not None:
            return self.among
        whole = torch.ones(self.count, self.count, dtype=torch.bool, device=self.states.device)
        return whole.tril()

    def seen(self, held: int) -> Tensor:
        """Which of `held` earlier tokens and the new ones each new token may see."""
        before = torch.ones(self.count, held, dtype=torch.bool, device=self.states.device)
        return torch.cat([before, self.new()], dim=1)

    def grouped(self, heads: int) -> Tensor:
        """States [batch, heads, group, tokens, head_dim] beside the key-value heads they ask."""
        return self.states.unflatten(1, (heads, -1))


def attend(queries: Queries, keys: Tensor, values: Tensor, seen: Tensor | None = None) -> Tensor:
    """What queries find among keys and values [batch, heads, tokens, head_dim].

    Args:
        queries: of the last tokens.
        keys: of all tokens, the new ones last.
        values: beside them.
        seen: [new tokens, tokens]; None for all held ones and what `queries` says of the new.

    Returns:
        [batch, query heads, new tokens, head_dim].
    """
    if seen is None and not (queries.count == 1 and queries.among is None):
        seen = queries.seen(keys.shape[2] - queries.count)
    if queries.softcap is None:
        return torch.nn.functional.scaled_dot_product_attention(
            queries.states, keys, values, attn_mask=seen, scale=queries.scale, enable_gqa=True
        )
    return mix(weights(scores(queries, keys), queries.softcap, seen), values)


def scores(queries: Queries, keys: Tensor) -> Tensor:
    """Scaled products [batch, heads, group, new tokens, tokens] in float32."""
    asked = queries.grouped(keys.shape[1]).float()
    return asked @ keys.float().unsqueeze(2).transpose(3, 4) * queries.scale


def weights(found: Tensor, softcap: float | None, seen: Tensor | None) -> Tensor:
    """Shares that sum to 1 over the tokens that are seen."""
    if softcap is not None:
        found = softcap * torch.tanh(found / softcap)
    if seen is not None:
        found = found.masked_fill(~seen, -torch.inf)
    return found.softmax(-1)


def mix(shares: Tensor, values: Tensor) -> Tensor:
    """Values weighted by shares, [batch, query heads, new tokens, head_dim]."""
    return (shares @ values.float().unsqueeze(2)).flatten(1, 2).to(values.dtype)
