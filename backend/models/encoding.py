"""Holds what is left of a model in 16 bits by an encoder: matrices, embedding, head, and parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from backend.errors import OutOfReachError
from backend.formats import Dense, Format, HeldEmbedding, HeldLinear

if TYPE_CHECKING:
    from backend.methods.base import EncodeMethod
    from backend.models.view import View


def encode(
    view: View, method: EncodeMethod, progress: Callable[[str, int, int], None]
) -> list[str]:
    """Hold every matrix of bfloat16 numbers by a method; what stays as it is, in words.

    Raises:
        OutOfReachError: the numbers coded take more than the method's bits in all.
    """
    work = _Work(method)
    blocks = len(view.blocks)
    for block in range(blocks):
        progress("encode", block, blocks)
        for site in view.sites(block):
            held = view.held(site)
            if held is not None:
                view.hold(site, work.inside(held))
            elif (found := work.coded(view.weight(site))) is not None:
                view.hold(site, found)
    _encode_ends(view, work)
    work.check()
    progress("encode", blocks, blocks)
    return work.remarks(view)


def _encode_ends(view: View, work: _Work) -> None:
    """The embedding and the head, once where they are tied."""
    embedding, head = view.embedding, view.head
    for module in (embedding, head):
        if isinstance(module, HeldEmbedding | HeldLinear):
            module.held = work.inside(module.held)
    if not isinstance(embedding, nn.Embedding):
        return
    weight = embedding.weight
    found = work.coded(weight.detach())
    if found is not None:
        view.hold_embedding(found)
    if isinstance(head, nn.Linear) and head.weight is not weight:
        found = work.coded(head.weight.detach())
        if found is not None:
            view.hold_head(found)


class _Work:
    """Codes matrices, each once, and counts what that takes."""

    def __init__(self, method: EncodeMethod) -> None:
        self.method = method
        self.numbers = self.bytes = 0
        self._made: dict[int, tuple[Format, Format]] = {}

    def coded(self, weight: Tensor) -> Format | None:
        """What holds a matrix of numbers that bfloat16 holds; None for others, or if none pays."""
        short = weight.to(torch.bfloat16)
        return self._take(short) if torch.equal(short.to(weight.dtype), weight) else None

    def inside(self, held: Format) -> Format:
        """A format with the bfloat16 matrices in it coded."""
        if id(held) in self._made:
            return self._made[id(held)][1]
        found = held
        if isinstance(held, Dense):
            if held.values.dtype == torch.bfloat16:
                found = self._take(held.values) or held
        else:
            for name, part in held.inner().items():
                setattr(held, name, self.inside(part))
        self._made[id(held)] = held, found
        return found

    def _take(self, values: Tensor) -> Format | None:
        if values.numel() == 0:
            return None
        found = self.method.encode(values)
        self.numbers += values.numel()
        self.bytes += values.nbytes if found is None else found.nbytes
        return found

    def check(self) -> None:
        """Refuse a budget that was not kept."""
        bits = self.method.settings()[self.method.level]
        if self.numbers and 8 * self.bytes > bits * self.numbers:
            raise OutOfReachError(
                f"{self.method.key()} needs {8 * self.bytes / self.numbers:.2f} bits per number of "
                f"this model, not {bits:g}; ask for that, or quantise."
            )

    def remarks(self, view: View) -> list[str]:
        """What was left: parameters that are no matrices of 16-bit numbers."""
        left = sum(part.numel() for part in view.model.parameters())
        if not self.numbers:
            return [f"{self.method.key()} found no matrix of bfloat16 numbers; nothing was coded."]
        return [f"{left:,} numbers of norms, biases and others stay as they were."] if left else []


def weights(view: View) -> dict[str, Tensor]:
    """Every tensor of a model by the name that it has in the dense one, decoded where held."""
    state = view.model.state_dict()
    found = {name: tensor for name, tensor in state.items() if ".held." not in name}
    ends = [module for module in (view.embedding, view.head) if module is not None]
    for module in [*(view.module(site) for site in view.all_sites()), *ends]:
        if isinstance(module, HeldLinear | HeldEmbedding):
            dtype = next(view.model.parameters()).dtype
            name, held = view.name_of(module), module.held
            found[f"{name}.weight"] = held.dense().to(dtype)
            if getattr(held, "shifted", False):  # in a dense layer it is a bias
                bias = found.get(f"{name}.bias", 0)
                found[f"{name}.bias"] = held.shift.to(dtype) + bias
    for site in view.all_sites():  # one orientation for all
        name = f"{site.name}.weight"
        found[name] = view.weight(site).to(found[name].dtype)
    return found
