"""The widest codes that a budget pays for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from backend.errors import OutOfReachError

if TYPE_CHECKING:
    from backend.caches.codecs import Codec
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
    reach = math.ceil(100 * least - 1e-9) / 100
    raise OutOfReachError(
        f"{method.key()} holds {reach:.2f} bits or more per number with heads of {head_dim} and "
        f"these settings, not {budget:g}; ask for {reach:.2f} or more, or for longer chunks."
    )
