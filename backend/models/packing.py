"""Reads many prompts in one pass of a model of transformers: packed into rows, or padded.

Packed, the attention is told which tokens belong together by a mask for each row; what comes out
is each prompt's last logits, and its keys and values as if it had been read alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

States = list[tuple[Tensor, Tensor] | None]
"""Keys and values [1, heads, tokens, head_dim] of each layer; None where one keeps none."""


@torch.inference_mode()
def packed(
    model: nn.Module, prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[int]]
) -> tuple[Tensor, list[States]]:
    """Last logits [prompts, vocabulary], and each prompt's keys and values.

    Args:
        model: whose attention takes a mask for each row.
        prompts: ids, none empty.
        rows: which prompts share a row, by their places; each prompt once.
    """
    device = next(model.parameters()).device
    width = max(sum(len(prompts[place]) for place in row) for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    positions, owners = torch.zeros_like(tokens), torch.full_like(tokens, -1)
    spans: dict[int, tuple[int, int, int]] = {}
    for index, row in enumerate(rows):
        ends = list(accumulate((len(prompts[place]) for place in row), initial=0))
        for place, start, end in zip(row, ends, ends[1:], strict=False):
            tokens[index, start:end] = torch.tensor(prompts[place])
            positions[index, start:end] = torch.arange(end - start)
            owners[index, start:end] = place
            spans[place] = index, start, end
    cache = DynamicCache()  # no window drops tokens, for a row holds several texts
    found = [spans[place] for place in range(len(prompts))]
    last = torch.tensor([end - 1 for _, _, end in found])
    kept, places = last.unique(return_inverse=True)
    output = model(
        input_ids=tokens.to(device),
        position_ids=positions.to(device),
        attention_mask=_masks(model, owners.to(device)),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=kept.to(device),
    )
    logits = output.logits[torch.tensor([index for index, _, _ in found]), places]
    return logits, [_cut(cache, *span) for span in found]


@torch.inference_mode()
def padded(model: nn.Module, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Last logits [prompts, vocabulary] of a batch that is filled up on the left."""
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
    seen = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        seen[row, width - len(prompt) :] = 1
    output = model(
        input_ids=tokens.to(device),
        position_ids=(seen.cumsum(1) - 1).clamp(min=0).to(device),
        attention_mask=seen.to(device),
        past_key_values=DynamicCache(config=model.config),
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1]


def _masks(model: nn.Module, owners: Tensor) -> Any:
    """What is added to scores, so that tokens of one owner see those before them alone.

    Where a model has layers with a window and layers without, a mask for each kind, by its name.

    Args:
        model: tells its kinds of layers.
        owners: [rows, tokens], -1 for what fills a row up and sees itself.
    """
    text = model.config.get_text_config()
    places = torch.arange(owners.shape[1], device=owners.device)
    behind = places[:, None] - places
    same = (owners[:, :, None] == owners[:, None]) & (behind >= 0)
    same &= (owners >= 0)[:, :, None] | (behind == 0)
    window = getattr(text, "sliding_window", None)
    near = same if window is None else same & (behind < window)
    dtype = next(model.parameters()).dtype
    kinds = set(getattr(text, "layer_types", None) or ())
    if len(kinds) > 1:
        return {kind: _added(near if "sliding" in kind else same, dtype) for kind in kinds}
    return _added(same if kinds == {"full_attention"} else near, dtype)


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask [rows, 1, tokens, tokens] to add, of which token each may see."""
    hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return hidden.masked_fill_(~seen, torch.finfo(dtype).min).unsqueeze(1)


def _cut(cache: DynamicCache, row: int, start: int, end: int) -> States:
    own = slice(row, row + 1), slice(None), slice(start, end)
    return [
        (layer.keys[own], layer.values[own]) if layer.is_initialized else None
        for layer in cache.layers
    ]
