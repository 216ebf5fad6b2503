"""Experts held as one linear each, in place of transformers' stacked tensors.

Transformers 5 keeps the experts of a layer in two tensors of three dimensions, which no method
for matrices can treat. This module computes the same from `nn.Linear`s.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Expert(nn.Module):
    """One gated feed-forward network."""

    def __init__(self, gate_up: Tensor, down: Tensor) -> None:
        super().__init__()
        gate, up = gate_up.chunk(2, dim=0)
        self.gate_proj, self.up_proj, self.down_proj = map(_linear, (gate, up, down))

    def forward(self, hidden: Tensor, activation: nn.Module) -> Tensor:
        """Hidden states [tokens, hidden] to the same shape."""
        return self.down_proj(activation(self.gate_proj(hidden)) * self.up_proj(hidden))


class Experts(nn.Module):
    """All experts of a layer; takes the place of a stacked module and of its arguments."""

    def __init__(self, stacked: nn.Module) -> None:
        super().__init__()
        pairs = zip(stacked.gate_up_proj, stacked.down_proj, strict=True)
        self.experts = nn.ModuleList(Expert(gate_up, down) for gate_up, down in pairs)
        self.act_fn = stacked.act_fn

    def forward(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Route hidden states [tokens, hidden] to the chosen experts and add their outputs."""
        total = torch.zeros_like(hidden)
        for index, expert in enumerate(self.experts):
            token, choice = torch.where(top_k_index == index)
            if token.numel() == 0:
                continue
            output = expert(hidden[token], self.act_fn) * top_k_weights[token, choice, None]
            total.index_add_(0, token, output.to(total.dtype))
        return total


def unstack(model: nn.Module) -> int:
    """Replace every stacked module of a model by `Experts`; returns how many."""
    found = [(name, module) for name, module in model.named_modules() if _is_stacked(module)]
    for name, module in found:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Experts(module))
    return len(found)


def _is_stacked(module: nn.Module) -> bool:
    tensors = [getattr(module, name, None) for name in ("gate_up_proj", "down_proj")]
    stacked = all(isinstance(part, nn.Parameter) and part.dim() == 3 for part in tensors)
    return (
        stacked
        and hasattr(module, "act_fn")
        and not getattr(module, "is_transposed", False)
        and tensors[0].shape[1] == 2 * tensors[1].shape[2]
    )


def _linear(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    return linear
