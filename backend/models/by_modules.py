"""The blocks of a Llama-shaped model by their own modules, without what transformers does beside.

The same products in the same order; what queries find among keys and values, the caller says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.caches.attention import Queries
from backend.caches.base import LayerCache
from backend.models.native import Block
from backend.models.steady import Answer, States


def through(
    blocks: Sequence[Block], hidden: Tensor, turns: tuple[Tensor, Tensor], answer: Answer
) -> Tensor:
    """Hidden states [batch, tokens, channels] behind all blocks.

    Args:
        blocks: of the model.
        hidden: states before the first.
        turns: cosines and sines of the tokens.
        answer: what queries find among keys and values.
    """
    for index, block in enumerate(blocks):
        if block.attention is not None:
            asked = normalised(block.before, hidden)
            found = _attended(block.attention, asked, turns, partial(answer, index))
            hidden = found + (block.shortcuts[0](hidden) if block.shortcuts else hidden)
        if block.network is not None:
            found = _network(block.network, normalised(block.between, hidden))
            hidden = found + (block.shortcuts[1](hidden) if block.shortcuts else hidden)
    return hidden


def _attended(
    attention: Any,
    hidden: Tensor,
    turns: tuple[Tensor, Tensor],
    answer: Callable[[float, States], Tensor],
) -> Tensor:
    """What one block's attention adds, [batch, tokens, channels]."""
    shape = *hidden.shape[:2], -1, attention.head_dim
    queries = attention.q_proj(hidden).view(shape)
    keys = attention.k_proj(hidden).view(shape)
    values = attention.v_proj(hidden).view(shape).transpose(1, 2)
    if hasattr(attention, "q_norm"):
        queries = normalised(attention.q_norm, queries)
        keys = normalised(attention.k_norm, keys)
    both = torch.cat([queries, keys], dim=2).transpose(1, 2)
    cosine, sine = turns
    both = both * cosine + both.roll(attention.head_dim // 2, -1) * sine
    queries, keys = both.split([queries.shape[2], keys.shape[2]], dim=1)
    found = answer(attention.scaling, (queries, keys, values))
    return attention.o_proj(found.transpose(1, 2).flatten(2))


def normalised(norm: nn.Module, hidden: Tensor) -> Tensor:
    """What a norm gives, by torch's own product where it is a plain one in float32."""
    epsilon = getattr(norm, "variance_epsilon", None)
    if epsilon is None or hidden.dtype != torch.float32:
        return norm(hidden)
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, epsilon)


def _network(network: Any, hidden: Tensor) -> Tensor:
    gate = network.act_fn(network.gate_proj(hidden))
    return network.down_proj(gate * network.up_proj(hidden))


def found_in(cache: LayerCache, asked: Queries, keys: Tensor, values: Tensor) -> Tensor:
    """What new queries find in a cache, [batch, heads, tokens, head_dim]."""
    if cache.attends:
        return cache.attend(asked, keys, values)
    return _dense_attention(asked, *cache.append(keys, values))


def _dense_attention(asked: Queries, keys: Tensor, values: Tensor) -> Tensor:
    """What queries find among dense keys and values, [batch, heads, tokens, head_dim]."""
    alone = asked.count == 1 and asked.among is None
    first = asked.count == keys.shape[2] and asked.among is None
    return functional.scaled_dot_product_attention(
        asked.states,
        keys,
        values,
        attn_mask=None if alone or first else asked.seen(keys.shape[2] - asked.count),
        is_causal=first and not alone,
        scale=asked.scale,
        enable_gqa=True,
    )
