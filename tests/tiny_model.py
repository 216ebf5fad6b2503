"""A hand-written causal model small enough to run in every test; it follows the real protocol."""

from __future__ import annotations

import contextlib
import math

import torch


class TinyModel(torch.nn.Module):
    """Two attention blocks over learned positions, random weights, embedding tied to the head."""

    has_cache_method = False
    skippable = ()

    def __init__(self, vocabulary=16, width=16, blocks=2, positions=96, seed=0, end=None):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weight(rows, columns, gain):
            values = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
            return torch.nn.Parameter((gain * values / math.sqrt(columns)).float())

        self.vocabulary_size = vocabulary
        self.end_token = end
        self.embedding = weight(vocabulary, width, 2.0)
        self.head = self.embedding
        self.position = weight(positions, width, 2.0)
        self.blocks = torch.nn.ModuleList(
            Block(*(weight(width, width, 1.5) for _ in range(4))) for _ in range(blocks)
        )

    @property
    def device(self):
        return self.embedding.device

    def logits(self, tokens):
        session = self.session(tokens.shape[0], tokens.shape[1])
        return session.feed(tokens)

    def session(self, batch, length):
        return TinySession(self, batch, length)

    def without(self, halves):
        assert not halves
        return contextlib.nullcontext()


class Block(torch.nn.Module):
    """One head of attention with an output map and a residual."""

    def __init__(self, query, key, value, output):
        super().__init__()
        self.query, self.key, self.value, self.output = query, key, value, output

    def forward(self, hidden, past, among):
        keys, values = hidden @ self.key.T, hidden @ self.value.T
        if past is not None:
            keys, values = torch.cat([past[0], keys], 1), torch.cat([past[1], values], 1)
        scores = (hidden @ self.query.T) @ keys.transpose(1, 2) / math.sqrt(hidden.shape[-1])
        new, total = hidden.shape[1], keys.shape[1]
        mask = torch.ones(new, total, dtype=torch.bool)
        mask[:, total - new :] = among
        mixed = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ values
        return hidden + torch.tanh(mixed @ self.output.T), (keys, values)


class TinySession:
    """Keys and values of each block, grown by concatenation."""

    def __init__(self, model, batch, length):
        self.model, self.batch, self.limit, self.length = model, batch, length, 0
        self.past = [None] * len(model.blocks)

    branching = True

    def feed(self, tokens, parents=None):
        assert tokens.shape[0] == self.batch
        count = tokens.shape[1]
        start, self.length = self.length, self.length + count
        assert self.length <= self.limit
        parents = range(-1, count - 1) if parents is None else parents
        among, depth = torch.eye(count, dtype=torch.bool), [0] * count
        for row, parent in enumerate(parents):
            if parent >= 0:
                among[row] |= among[parent]
                depth[row] = depth[parent] + 1
        hidden = self.model.embedding[tokens] + self.model.position[start + torch.tensor(depth)]
        for index, block in enumerate(self.model.blocks):
            result = block(hidden, self.past[index], among)
            hidden, self.past[index] = result
        return hidden @ self.model.head.T

    def read(self, tokens):
        return self.feed(tokens)[:, -1]

    def ahead(self, token, count, end):
        return []

    def crop(self, length):
        self.pick(length, ())

    def pick(self, start, places):
        kept = [*range(start), *(start + place for place in places)]
        self.past = [(keys[:, kept], values[:, kept]) for keys, values in self.past]
        self.length = len(kept)

    def croppable(self):
        return self.limit

    def cache_bytes(self):
        return sum(
            part.numel() * part.element_size() for pair in self.past if pair for part in pair
        )
