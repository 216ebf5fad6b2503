"""A Llama-shaped model whose residual stream is narrower than it was trained to be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backend.models.view import View


class WidthNorm(nn.Module):
    """Root-mean-square norm without weights, over a stream that once had `width` channels."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.width, self.epsilon = width, epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """Divide hidden states [..., channels] by their root mean square over `width`."""
        values = hidden.to(torch.float32)
        mean = values.square().sum(-1, keepdim=True) / self.width
        return (values * torch.rsqrt(mean + self.epsilon)).to(hidden.dtype)


class SlicedBlock(nn.Module):
    """Attention and feed-forward between streams in three bases, with a map for each shortcut."""

    def __init__(self, block: nn.Module, channels: int, width: int) -> None:
        super().__init__()
        epsilon = block.input_layernorm.variance_epsilon
        self.input_layernorm = WidthNorm(width, epsilon)
        self.post_attention_layernorm = WidthNorm(width, epsilon)
        self.self_attn, self.mlp = block.self_attn, block.mlp
        for name, module in list(self.named_modules()):
            if isinstance(module, nn.Linear):
                self._narrow(name, module, channels, width)
        like = self.self_attn.o_proj.weight
        self.attention_shortcut = empty_linear(channels, channels, like)
        self.mlp_shortcut = empty_linear(channels, channels, like)

    def _narrow(self, name: str, linear: nn.Linear, channels: int, width: int) -> None:
        writes = name.endswith(("o_proj", "down_proj"))
        if (linear.out_features if writes else linear.in_features) != width:
            raise ValueError(f"{name} neither reads nor writes a stream of {width} channels.")
        rows = channels if writes else linear.out_features
        columns = linear.in_features if writes else channels
        narrow = empty_linear(rows, columns, linear.weight, linear.bias is not None)
        parent, _, child = name.rpartition(".")
        setattr(self.get_submodule(parent), child, narrow)

    def forward(self, hidden_states: Tensor, **keywords: Any) -> Tensor:
        """Hidden states [batch, length, channels] to the same shape, in the next basis."""
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **keywords)
        hidden = self.attention_shortcut(hidden_states) + attended
        return self.mlp_shortcut(hidden) + self.mlp(self.post_attention_layernorm(hidden))


class SlicedEnd(nn.Module):
    """The last norm, and a map to the basis that the head reads."""

    def __init__(self, norm: nn.Module, channels: int, width: int) -> None:
        super().__init__()
        self.norm = WidthNorm(width, norm.variance_epsilon)
        self.shortcut = empty_linear(channels, channels, norm.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., channels] as the head wants them."""
        return self.shortcut(self.norm(hidden))


def empty_linear(rows: int, columns: int, like: Tensor, bias: bool = False) -> nn.Linear:
    """A linear layer whose tensors, of the type and where `like` is, are still to be filled."""
    linear = nn.Linear(columns, rows, bias=bias, device="meta", dtype=like.dtype)
    linear = linear.to_empty(device=like.device)
    return linear.requires_grad_(requires_grad=False)


def narrow(view: View, channels: int) -> None:
    """Give every block, the embedding, the last norm and the head `channels` channels."""
    width = view.model.config.hidden_size
    for index, block in enumerate(view.blocks):
        view.blocks[index] = SlicedBlock(block, channels, width)
    parent = view.model.get_submodule(view.blocks_name.rpartition(".")[0])
    parent.norm = SlicedEnd(parent.norm, channels, width)
    weight = view.embedding.weight.detach()
    tied = view.head.weight is view.embedding.weight
    vocabulary = weight.shape[0]
    view.embedding.weight = nn.Parameter(
        weight.new_empty(vocabulary, channels), requires_grad=False
    )
    view.embedding.embedding_dim = channels
    if tied:
        view.head.weight = view.embedding.weight
    else:
        view.head.weight = nn.Parameter(weight.new_empty(vocabulary, channels), requires_grad=False)
    view.head.in_features = channels
