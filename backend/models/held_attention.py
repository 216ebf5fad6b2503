"""Lets a cache answer a model's queries itself, by an attention that transformers knows by name.

The model keeps its own attention outside of a feed; layers whose cache only gives back keys and
values get what the model's own attention would compute.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from backend.caches.attention import Queries, Turn, attend
from backend.caches.base import LayerCache
from backend.errors import ModelError

NAME = "held"
UNKNOWN = ("s_aux", "position_bias")


@dataclass(frozen=True)
class Feed:
    """What the layers must know of the tokens being fed.

    Attributes:
        held: caches that answer queries themselves, by layer.
        positions: [tokens] of each new token in its text.
        among: [tokens, tokens] which new tokens each may see; None for all up to itself.
        turn: the model's rotary embedding, if it has one.
    """

    held: dict[int, LayerCache]
    positions: Tensor
    among: Tensor | None
    turn: Turn | None


_FEED: ContextVar[Feed | None] = ContextVar("feed", default=None)


@contextlib.contextmanager
def answered_by_caches(model: nn.Module, feed: Feed) -> Iterator[None]:
    """Inside, the model's attention asks the caches of `feed`."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
    config, before = model.config, model.config._attn_implementation
    token = _FEED.set(feed)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _FEED.reset(token)


def check(model: nn.Module) -> None:
    """Refuse a model whose attention cannot be named.

    Raises:
        ModelError: says what would work.
    """
    if not getattr(model, "_supports_attention_backend", False):
        raise ModelError(
            f"{type(model).__name__} hands no queries to its cache, which this cache method "
            "needs; take one that only changes how keys and values are held, such as kv-int."
        )


def _attention(  # noqa: PLR0917 - as transformers calls it
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    feed = _FEED.get()
    if feed is None or any(others.get(name) is not None for name in UNKNOWN):
        raise ModelError(
            f"{type(module).__name__} adds something of its own to its attention; take a cache "
            "method that only changes how keys and values are held, such as kv-int."
        )
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    asked = Queries(query, scale, feed.positions, feed.among, softcap, feed.turn)
    held = feed.held.get(module.layer_idx)
    if held is not None:
        found = held.attend(asked, key, value)
    else:
        found = attend(asked, key, value, attention_mask)
    return found.transpose(1, 2).contiguous(), None


def visible(parents: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Which tokens of a tree each may see [tokens, tokens], and its depth [tokens].

    Args:
        parents: index of the token that each follows; -1 for the text's last.
        device: of the results.
    """
    count = len(parents)
    seen, depth = [0] * count, [0] * count  # a bit a token
    for index, parent in enumerate(parents):
        seen[index] = 1 << index
        if parent >= 0:
            seen[index] |= seen[parent]
            depth[index] = depth[parent] + 1
    packed = b"".join(row.to_bytes(-(-count // 8), "little") for row in seen)
    rows = numpy.frombuffer(packed, numpy.uint8).reshape(count, -1)
    among = numpy.unpackbits(rows, axis=1, count=count, bitorder="little").view(bool)
    return torch.from_numpy(among).to(device), torch.tensor(depth, device=device)
