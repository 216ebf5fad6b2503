"""A linear between some channels of a wider one: the others are written as zeros, or not read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from backend.models.sliced import empty_linear
from kernels import bitpack, packed, products
from kernels.products import Product

SIDES = ("outputs", "inputs")


class PlacedLinear(nn.Module):
    """Holds a smaller linear, `kept`, and one bit a channel of the wider side that stays known."""

    mask: Tensor

    def __init__(self, kept: nn.Linear, width: int, side: str) -> None:
        super().__init__()
        if side not in SIDES:
            raise ValueError(f"Channels are placed at {' or '.join(SIDES)}, not at {side!r}.")
        self.kept, self.side, self.bias = kept, side, None
        self.out_features = width if side == "outputs" else kept.out_features
        self.in_features = width if side == "inputs" else kept.in_features
        bits = torch.empty(1, bitpack.packed_columns(width, 1), dtype=torch.uint8)
        self.register_buffer("mask", bits.to(kept.weight.device))

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, stay: Tensor, side: str) -> PlacedLinear:
        """Hold a weight [outputs, inputs] that has only the channels where `stay` is true."""
        kept = empty_linear(*weight.shape, weight, bias is not None)
        kept.weight.data.copy_(weight)
        if bias is not None:
            kept.bias.data.copy_(bias)
        found = cls(kept, stay.numel(), side)
        found.mask = bitpack.pack_plane(stay.view(1, -1).to(torch.uint8), 1).to(weight.device)
        return found

    @property
    def places(self) -> Tensor:
        """Where the channels that stay are, rising; read anew, for as numbers they take more."""
        width = self.out_features if self.side == "outputs" else self.in_features
        return bitpack.unpack_plane(self.mask, 1, width).flatten().nonzero().flatten()

    def check(self) -> None:
        """Hold what was loaded against itself, since steps read it without looking.

        Raises:
            ValueError: as many channels are not marked as the smaller linear has.
        """
        marked = self.places.numel()
        kept = self.kept.in_features if self.side == "inputs" else self.kept.out_features
        if marked != kept:
            raise ValueError(f"A mask marks {marked:,} channels; {kept:,} are held.")

    def forward(self, activation: Tensor) -> Tensor:
        """Activation [..., in_features] to [..., out_features]."""
        if self.side == "inputs":
            return self.kept(activation.index_select(-1, self.places))
        found = self.kept(activation)
        whole = found.new_zeros(*found.shape[:-1], self.out_features)
        return whole.index_copy(-1, self.places, found)

    def product(self, of: Callable[[nn.Module], Product | None]) -> Product | None:
        """The same in a decode step, where `of` knows the smaller linear's."""
        inner, places = of(self.kept), self.places
        if inner is None:
            return None
        if self.side == "inputs":
            return products.gathered(places, self.in_features, inner)
        silent = packed.dense(torch.zeros(1, self.in_features))
        order = torch.full((self.out_features,), inner.rows)
        order[places] = torch.arange(inner.rows)
        return None if silent is None else products.placed(order, inner, silent.product())
