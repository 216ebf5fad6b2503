"""A table of tokens whose rows are held in a format."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.formats.base import Format


class HeldEmbedding(nn.Module):
    """Takes the place of `nn.Embedding`: looks up rows, in the type of the model around it."""

    def __init__(self, held: Format, dtype: torch.dtype, scale: float = 1.0) -> None:
        super().__init__()
        self.held, self.dtype, self.scale = held, dtype, scale
        self.num_embeddings, self.embedding_dim = held.shape

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of any shape to their rows, [..., columns]."""
        rows = self.held.take(tokens.flatten()).to(self.dtype).view(*tokens.shape, -1)
        return rows if self.scale == 1.0 else rows * torch.tensor(self.scale, dtype=self.dtype)
