"""Models kept loaded for the next text, the one used longest ago given up first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import psutil

Value = TypeVar("Value")
MOST = 8
SHARE = 0.5  # of the memory that is free, which what is kept may take


class Shelf(Generic[Value]):
    """Loaded models by key, at most as many bytes as half of what is free.

    Args:
        weigh: bytes that a value keeps.
        most: how many are kept.
    """

    def __init__(self, weigh: Callable[[Value], int], most: int = MOST) -> None:
        self._held: OrderedDict[str, tuple[Value, int]] = OrderedDict()
        self._weigh, self._most = weigh, most

    def __contains__(self, key: str) -> bool:
        """Whether it is loaded."""
        return key in self._held

    def take(self, key: str, make: Callable[[], Value]) -> tuple[Value, int]:
        """What stands under the key, made if it is not there, and its bytes."""
        if key not in self._held:
            value = make()
            self._held[key] = value, self._weigh(value)
        self._held.move_to_end(key)
        found = self._held[key]
        self._tidy()
        return found

    def _tidy(self) -> None:
        room = SHARE * psutil.virtual_memory().available
        while len(self._held) > self._most or (
            len(self._held) > 1 and sum(size for _, size in self._held.values()) > room
        ):
            self._held.popitem(last=False)
