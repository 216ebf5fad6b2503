"""The network that is trained: Llama in plain torch, written for speed on small shapes.

Query, key and value share one matrix, and so do gate and up, because at these sizes the number of
calls costs more than the arithmetic. `llama_weights` splits them into the names that Llama
checkpoints use. Training only; every other room reads the exported model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ROTARY_BASE = 10_000.0
NORM_EPSILON = 1e-5
INITIAL_SPREAD = 0.02


@dataclass(frozen=True)
class Shape:
    """Sizes of one Llama network with tied embeddings."""

    vocabulary: int = 2048
    hidden: int = 128
    layers: int = 4
    feed_forward: int = 256
    heads: int = 4
    key_heads: int = 2
    positions: int = 512

    @property
    def head_width(self) -> int:
        """Numbers per attention head."""
        return self.hidden // self.heads


class Norm(nn.Module):
    """Root-mean-square norm with one learnt scale per channel."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, states: Tensor) -> Tensor:
        """Return `states` (..., width) at unit root mean square, times the scales."""
        return functional.rms_norm(
            states, self.weight.shape, self.weight.to(states.dtype), NORM_EPSILON
        )


class Attention(nn.Module):
    """Grouped-query causal attention with rotary positions."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.heads, self.key_heads, self.width = shape.heads, shape.key_heads, shape.head_width
        rows = (shape.heads + 2 * shape.key_heads) * shape.head_width
        self.qkv = nn.Linear(shape.hidden, rows, bias=False)
        self.out = nn.Linear(shape.heads * shape.head_width, shape.hidden, bias=False)

    def forward(self, states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Mix `states` (batch, time, hidden) over the positions before each one."""
        batch, time, _ = states.shape
        mixed = self.qkv(states).view(batch, time, -1, self.width)
        turned, value = mixed.split((self.heads + self.key_heads, self.key_heads), dim=2)
        turned = rotate(turned, cosine, sine)
        query, key = turned.split((self.heads, self.key_heads), dim=2)
        groups = self.heads // self.key_heads
        mixed = functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.repeat_interleave(groups, dim=2).transpose(1, 2),
            value.repeat_interleave(groups, dim=2).transpose(1, 2),
            is_causal=True,
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, time, -1))


class FeedForward(nn.Module):
    """Gated feed-forward layer (SwiGLU)."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.gate_up = nn.Linear(shape.hidden, 2 * shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, shape.hidden, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """Return the gated transform of `states` (batch, time, hidden)."""
        gate, up = self.gate_up(states).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)


class Block(nn.Module):
    """One Llama layer: attention and feed-forward, each behind a norm and a residual."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.attention_norm, self.attention = Norm(shape.hidden), Attention(shape)
        self.feed_norm, self.feed_forward = Norm(shape.hidden), FeedForward(shape)

    def forward(self, states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return the residual stream after this layer."""
        states = states + self.attention(self.attention_norm(states), cosine, sine)
        return states + self.feed_forward(self.feed_norm(states))


class Network(nn.Module):
    """A Llama language model whose output matrix is its embedding matrix."""

    def __init__(self, shape: Shape, generator: torch.Generator | None = None):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.hidden)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.hidden)
        cosine, sine = rotary_tables(shape.positions, shape.head_width)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self._initialise(generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, time, vocabulary) for `tokens` (batch, time)."""
        return functional.linear(self.states(tokens), self.embedding.weight)

    def loss(self, tokens: Tensor) -> Tensor:
        """Return the mean negative log-likelihood, in nats, of each token after the first."""
        states = self.states(tokens)[:, :-1]
        logits = functional.linear(states, self.embedding.weight)
        return functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    def states(self, tokens: Tensor) -> Tensor:
        """Return the last normed states (batch, time, hidden) for `tokens` (batch, time)."""
        states = self.embedding(tokens)
        if torch.is_autocast_enabled(tokens.device.type):
            states = states.to(torch.get_autocast_dtype(tokens.device.type))
        time = tokens.shape[1]
        cosine, sine = self.cosine[:time].to(states.dtype), self.sine[:time].to(states.dtype)
        for block in self.blocks:
            states = block(states, cosine, sine)
        return self.norm(states)

    def _initialise(self, generator: torch.Generator | None) -> None:
        residual_spread = INITIAL_SPREAD / (2 * self.shape.layers) ** 0.5
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                writes_residual = name.endswith(("out.weight", "down.weight"))
                spread = residual_spread if writes_residual else INITIAL_SPREAD
                nn.init.normal_(weight, std=spread, generator=generator)


def rotary_tables(positions: int, width: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (positions, 1, width) of the rotary angles."""
    frequency = ROTARY_BASE ** -(torch.arange(0, width, 2).float() / width)
    angle = torch.outer(torch.arange(positions).float(), frequency)
    angle = torch.cat((angle, angle), dim=-1)[:, None, :]
    return angle.cos(), angle.sin()


def rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the halves of each head in `states` (batch, time, heads, width) by its position."""
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat((-second, first), dim=-1) * sine


def llama_weights(network: Network) -> dict[str, Tensor]:
    """Return the weights under the names of a Llama checkpoint, the fused ones split."""
    shape = network.shape
    query_rows, key_rows = shape.heads * shape.head_width, shape.key_heads * shape.head_width
    weights = {
        "model.embed_tokens.weight": network.embedding.weight,
        "model.norm.weight": network.norm.weight,
    }
    for index, block in enumerate(network.blocks):
        query, key, value = block.attention.qkv.weight.split((query_rows, key_rows, key_rows))
        gate, up = block.feed_forward.gate_up.weight.chunk(2)
        layer = {
            "self_attn.q_proj": query,
            "self_attn.k_proj": key,
            "self_attn.v_proj": value,
            "self_attn.o_proj": block.attention.out.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.feed_forward.down.weight,
            "input_layernorm": block.attention_norm.weight,
            "post_attention_layernorm": block.feed_norm.weight,
        }
        weights |= {f"model.layers.{index}.{name}.weight": value for name, value in layer.items()}
    return {name: weight.detach().clone().contiguous() for name, weight in weights.items()}
