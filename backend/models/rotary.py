"""A model's rotary embedding as a turn of its keys, believed only after it was tried."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from backend.caches.attention import Turn


@torch.inference_mode()
def find(model: nn.Module) -> Turn | None:
    """What turns a model's keys by positions; None where positions are not rotary.

    A lone token's keys at two positions must differ by the turn in every layer that sees all
    tokens; that tells halves from pairs, partial turns, and layers with another base.
    """
    near, far = _keys(model, 0), _keys(model, 3)
    for module in model.modules():
        for name, frequencies in module.named_buffers(recurse=False):
            if not name.endswith("inv_freq") or "original" in name:
                continue
            turn = _Turn(frequencies)
            step = torch.tensor([3], device=frequencies.device)
            if near and all(_alike(turn(a, step), b) for a, b in zip(near, far, strict=True)):
                return turn
    return None


class _Turn:
    """Turns the first channels of states, halves against each other."""

    def __init__(self, frequencies: Tensor) -> None:
        self.frequencies = frequencies.float()

    def __call__(self, states: Tensor, positions: Tensor) -> Tensor:
        """States [..., tokens, head_dim] turned by [tokens] positions."""
        angles = positions.float()[:, None] * self.frequencies
        half = self.frequencies.shape[0]
        first, second, rest = states.float().split(
            [half, half, states.shape[-1] - 2 * half], dim=-1
        )
        cosine, sine = angles.cos(), angles.sin()
        turned = [first * cosine - second * sine, second * cosine + first * sine, rest]
        return torch.cat(turned, dim=-1).to(states.dtype)


def _keys(model: nn.Module, position: int) -> list[Tensor]:
    cache = DynamicCache(config=model.config)
    device = next(model.parameters()).device
    token = torch.zeros(1, 1, dtype=torch.int64, device=device)
    places = torch.full((1, 1), position, device=device)
    model(input_ids=token, position_ids=places, past_key_values=cache, use_cache=True)
    return [layer.keys for layer in cache.layers if type(layer) is DynamicLayer]


def _alike(first: Tensor, second: Tensor) -> bool:
    if first.shape[-1] != second.shape[-1]:
        return False
    return bool((first.float() - second.float()).norm() < 0.02 * second.float().norm())
