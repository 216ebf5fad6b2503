"""The widest codes that a budget pays for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from backend.errors import OutOfReachError

if TYPE_CHECKING:
    from backend.caches.base import Codec
    from backend.methods.base import CacheMethod


def code_widths() -> Iterator[tuple[int, int]]:
    """Bits of keys and values, widest first, keys never coarser."""
    for total in range(16, 3, -1):
        keys = min(8, -(-total // 2))
        yield keys, total - keys


def widest(method: CacheMethod, codecs: Iterable[Codec], heads: int, head_dim: int) -> Codec:
    """The first of `codecs`, widest first, that takes no more than the method's budget.

    Raises:
        OutOfReachError: even the narrowest takes more with heads of this size.
    """
    budget = method.settings()[method.level]
    for codec in codecs:
        least = codec.bits(heads, head_dim)
        if least <= budget + 1e-9:
            return codec
    raise OutOfReachError(
        f"{method.key()} holds {least:.2f} bits or more per number with heads of {head_dim} and "
        f"these settings, not {budget:g}; ask for more bits, or for longer chunks."
    )
