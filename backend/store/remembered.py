"""What was made of the stored runs, kept until other runs are known; knows no database itself."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Remembered(Generic[Made]):
    """A function whose last answers are kept as long as what they rest on is the same.

    Args:
        version: what all answers rest on; once it has changed, none of before is held any more.
        make: the function; its arguments must be hashable, and what it returns must stay as it is.
        most: answers at a time; the one not asked for longest goes first.
    """

    def __init__(
        self, version: Callable[[], Hashable], make: Callable[..., Made], most: int = 8
    ) -> None:
        self._version = version
        self._make = make
        self._most = most
        self._at: Hashable = None
        self._kept: OrderedDict[Hashable, Made] = OrderedDict()
        self._turn = threading.Lock()

    def __call__(self, *asked: Hashable) -> Made:
        """The answer to these arguments, made at most once a version by whoever asks in turn."""
        version = self._version()
        with self._turn:
            if version != self._at:
                self._kept.clear()
                self._at = version
            if asked in self._kept:
                self._kept.move_to_end(asked)
                return self._kept[asked]
        made = self._make(*asked)
        with self._turn:
            if version == self._at:  # others may have asked about newer runs meanwhile
                self._kept[asked] = made
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        return made

    def __len__(self) -> int:
        return len(self._kept)
