"""How many bits keys and values of fewer channels take, and which directions a model's fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.caches.codecs import code_bits
from backend.caches.seen import MOST_WINDOWS, FittedCodec

if TYPE_CHECKING:
    from torch import Tensor

    from backend.caches.base import LayerCache
    from backend.caches.seen import Look

DENSE = 16


@dataclass(frozen=True)
class ReducedCodec(FittedCodec):
    """Directions kept of keys and of values, bits of what lies along them, and tokens.

    Attributes:
        key_rank: directions of all heads' keys together.
        value_rank: of their values.
        held_bits: of a number along a direction; 16 for bfloat16, fewer for codes.
        chunk: tokens that leave the window together.
        window: newest tokens kept as they are.
    """

    key_rank: int
    value_rank: int
    held_bits: int
    chunk: int
    window: int

    def layer(self, index: int) -> LayerCache:
        """An empty cache for layer `index`."""
        from backend.caches.reduced import ReducedLayerCache

        return ReducedLayerCache(self, index)

    def bits(self, heads: int, head_dim: int) -> float:
        """Numbers along directions, scales of codes; window and directions come on top."""
        channels = heads * head_dim
        keys, values = min(self.key_rank, channels), min(self.value_rank, channels)
        if self.held_bits == DENSE:
            return DENSE * (keys + values) / (2 * channels)
        held = keys * code_bits(self.held_bits, keys) + values * code_bits(self.held_bits, values)
        return (held + 32 * keys / self.chunk + 32) / (2 * channels)

    def learn(self, look: Look) -> dict[str, Tensor]:
        """The directions that hold most of each layer's keys and values, the strongest first.

        No factors of this rank rebuild what the layer gave for the calibration tokens better.
        """
        moments: dict[str, Tensor] = {}
        for window in look.windows[:MOST_WINDOWS].split(1):
            for layer, seen in look(window).items():
                for name, states in (("keys", seen.unturned()), ("values", seen.values)):
                    rows = states.transpose(1, 2).flatten(2).flatten(0, 1).double()
                    place = f"{layer}.{name}"
                    found = rows.T @ rows
                    moments[place] = moments[place] + found if place in moments else found
        ranks = {"keys": self.key_rank, "values": self.value_rank}
        return {
            place: _strongest(moment, ranks[place.rpartition(".")[2]])
            for place, moment in moments.items()
        }


def _strongest(moment: Tensor, rank: int) -> Tensor:
    """Eigenvectors [channels, rank] of the largest eigenvalues, bfloat16."""
    import torch

    directions = torch.linalg.eigh(moment).eigenvectors.flip(1)
    return directions[:, :rank].to(torch.bfloat16).contiguous()
