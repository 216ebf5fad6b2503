"""Codes of keys or values with the scales and offsets that belong to them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels import bitpack, held_states, packed
from kernels.rooms import States


class Packed:
    """Codes of whole chunks [batch, heads, chunks, tokens, channels] and what scales them.

    Scales and offsets are bfloat16 whatever the states are, as the budget counts them.

    Args:
        bits: of a code.
        over: dimension that shares a scale and an offset: 3 for tokens, 4 for channels.
    """

    def __init__(self, bits: int, over: int) -> None:
        self.bits, self.over = bits, over
        self.planes: dict[int, Tensor] = {}
        self.scales: Tensor | None = None
        self.offsets: Tensor | None = None

    def extend(self, states: Tensor) -> None:
        """Quantise further chunks [batch, heads, chunks, tokens, channels] behind the others."""
        found = held_states.rounded(states, self.bits, by_channel=self.over == 3)
        planes, scales, offsets = found or self._rounded(states)
        for width, plane in planes.items():
            self.planes[width] = behind(self.planes.get(width), plane)
        self.scales = behind(self.scales, scales)
        self.offsets = behind(self.offsets, offsets)

    def _rounded(self, states: Tensor) -> tuple[dict[int, Tensor], Tensor, Tensor]:
        low = states.amin(self.over, keepdim=True).to(torch.float32)
        high = states.amax(self.over, keepdim=True).to(torch.float32)
        levels = (1 << self.bits) - 1
        scales = ((high - low) / levels).clamp(min=1e-8).to(torch.bfloat16)
        offsets = low.to(torch.bfloat16)
        codes = ((states.float() - offsets.float()) / scales.float()).round().clamp(0, levels)
        planes = bitpack.pack(codes.flatten(0, 3), self.bits)
        whole = {width: plane.view(*states.shape[:4], -1) for width, plane in planes.items()}
        return whole, scales, offsets

    def chunks(self, channels: int) -> Tensor:
        """All states [batch, heads, chunks, tokens, channels] in float32."""
        shape = self.planes[max(self.planes)].shape[:4]
        flat = {width: plane.flatten(0, 3) for width, plane in self.planes.items()}
        codes = packed.numbers(flat, channels).view(*shape, channels)
        return codes.mul_(self.scales.float()).add_(self.offsets.float())

    def decode(self, channels: int, dtype: torch.dtype) -> Tensor:
        """All states [batch, heads, tokens, channels], computed in float32."""
        return self.chunks(channels).flatten(2, 3).to(dtype)

    def read(self, channels: int) -> States:
        """How a step reads all states."""
        by_channel = self.over == 3
        return held_states.codes(self.planes, self.scales, self.offsets, channels, by_channel)

    def keep(self, chunks: int) -> None:
        """Forget all but the first chunks."""
        self.planes = {width: plane[:, :, :chunks].clone() for width, plane in self.planes.items()}
        self.scales = self.scales[:, :, :chunks].clone()
        self.offsets = self.offsets[:, :, :chunks].clone()

    def tensors(self) -> Iterator[Tensor]:
        """All that is kept."""
        yield from self.planes.values()
        if self.scales is not None:
            yield self.scales
            yield self.offsets


def behind(old: Tensor | None, new: Tensor) -> Tensor:
    """Chunks put behind those that are there."""
    return new if old is None else torch.cat([old, new], dim=2)
