"""Stands in for a model that a cache method looks at before it makes caches."""

import torch

from backend.caches.attention import Queries
from backend.caches.seen import FittedCodec, Seen


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Looking:
    """One layer that is handed the same random states whatever it reads."""

    vocabulary_size, longest = 64, 512

    def __init__(self, heads, head_dim, length=96):
        self.windows = torch.arange(2 * length).view(2, length) % 64
        self.heads, self.head_dim = heads, head_dim

    def __call__(self, tokens):
        count, length = tokens.shape
        loud = torch.exp(normal(self.head_dim, seed=8))
        shape = length, self.head_dim
        keys = normal(count, self.heads, *shape, seed=11) * loud
        queries = normal(count, 2 * self.heads, *shape, seed=12)
        asked = Queries(queries, self.head_dim**-0.5, torch.arange(length))
        return {0: Seen(asked, keys, normal(count, self.heads, *shape, seed=13))}


def fitted(codec, look):
    """The codec after it looked, if it wants to."""
    return codec.fitted(codec.learn(look)) if isinstance(codec, FittedCodec) else codec


def made(method, heads, head_dim):
    """A method's codec, ready to make caches of one layer with such heads."""
    return fitted(method.codec(heads, head_dim), Looking(heads, head_dim))
