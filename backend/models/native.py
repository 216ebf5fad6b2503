"""Puts a model's modules together to a step of the extension, where it knows all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from backend.formats.embedding import HeldEmbedding
from backend.formats.linear import HeldLinear
from backend.models.placed import PlacedLinear
from backend.models.sliced import SlicedEnd, WidthNorm
from kernels import decode_step, packed
from kernels.decode_step import Norm, Step
from kernels.layout import Matrix
from kernels.products import Product

TYPES = (torch.float32, torch.bfloat16)
"""Of what flows between calls; within one everything is computed in float32."""
NAMES = {
    "query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj",
    "gate": "gate_proj", "up": "up_proj", "down": "down_proj",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """The modules of one block; attention or network is None where it is left out."""

    attention: Any
    network: Any
    before: nn.Module
    between: nn.Module
    shortcuts: tuple[nn.Module, nn.Module] | None


def step(model: Any, blocks: Sequence[Block]) -> Step | None:
    """A step through blocks of a causal model; None where a module is not known to one."""
    first = next((one.attention for one in blocks if one.attention is not None), None)
    inner, head = model.model, model.lm_head
    if first is None or not decode_step.fits(first.head_dim):
        return None
    if next(model.parameters()).device.type != "cpu":
        return None
    dtype = inner.embed_tokens(torch.zeros(1, 1, dtype=torch.int64)).dtype
    if dtype not in TYPES:
        return None
    parts = [_block(one) for one in blocks]
    end, shortcut, wanted = inner.norm, None, _product(head)
    if isinstance(end, SlicedEnd):
        end, shortcut = end.norm, _product(end.shortcut)
        if shortcut is None:
            return None
    if wanted is None or None in parts:
        return None
    norm, embedding = _norm(end, wanted.columns), _rows(inner.embed_tokens)
    blocks = [one for one in parts if one]
    return Step(blocks, first.head_dim, norm, wanted, shortcut, embedding, dtype)


def _block(block: Block) -> decode_step.Block | None:
    norms, products, scale = {}, {}, 1.0
    if block.attention is not None:
        scale = block.attention.scaling
        norms["before"] = _norm(block.before, block.attention.q_proj.in_features)
        if hasattr(block.attention, "q_norm"):
            norms["query_norm"] = _norm(block.attention.q_norm, block.attention.head_dim)
            norms["key_norm"] = _norm(block.attention.k_norm, block.attention.head_dim)
        for name in ("query", "key", "value", "output"):
            products[name] = _product(getattr(block.attention, NAMES[name]))
    if block.network is not None:
        if type(block.network.act_fn).__name__ not in ("SiLU", "SiLUActivation"):
            return None
        norms["between"] = _norm(block.between, block.network.gate_proj.in_features)
        for name in ("gate", "up", "down"):
            products[name] = _product(getattr(block.network, NAMES[name]))
    if block.shortcuts is not None:
        names = ("attention_shortcut", "network_shortcut")
        products |= zip(names, map(_product, block.shortcuts), strict=True)
    known = {name: one for name, one in products.items() if one is not None}
    return decode_step.Block(norms, known, scale) if len(known) == len(products) else None


def _norm(norm: Any, channels: int) -> Norm:
    if isinstance(norm, WidthNorm):
        return Norm(channels, float(norm.width), norm.epsilon)
    return decode_step.mean_square_norm(norm.weight, norm.variance_epsilon)


def _rows(table: nn.Module) -> Matrix | None:
    """Rows of tokens where the extension reads them as they lie; it looks at no others."""
    if type(table) is nn.Embedding:
        return packed.dense(table.weight.detach())
    if isinstance(table, HeldEmbedding) and table.scale == 1.0:
        return table.held.matrix()
    return None


def _product(module: nn.Module) -> Product | None:
    if isinstance(module, PlacedLinear):
        found = module.product(_product)
    elif isinstance(module, HeldLinear):
        found = module.held.product()
    elif type(module) is nn.Linear:
        matrix = packed.dense(module.weight.detach())
        found = None if matrix is None else matrix.product()
    else:
        found = None
    return None if found is None else found.plus(module.bias)
