"""Where a decode step finds the keys and values of a block; nothing is laid out anew.

The newest tokens lie in a room that the step writes into, as float32 or bfloat16. Older ones may
lie as a cache holds them: a function of the extension reads them piece by piece.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from kernels import extension

Address, Number = ctypes.c_void_p, ctypes.c_int64


class PastStructure(ctypes.Structure):
    """`Past` of kernels/cpu/decode_step.h."""

    _fields_ = (
        ("tokens", Number),
        ("piece", Number),
        *((name, Address) for name in ("read_keys", "read_values", "keys", "values")),
    )


class RoomStructure(ctypes.Structure):
    """`Room` of the header."""

    _fields_ = (
        ("keys", Address),
        ("values", Address),
        ("capacity", Number),
        ("halved", Number),
        ("past", Address),
        *((name, Number) for name in ("sinks", "reach", "gone")),
        ("asked", Address),
    )


@dataclass(frozen=True)
class States:
    """Keys or values that a function of the extension reads, and what must stay alive."""

    function: str
    structure: ctypes.Structure
    kept: tuple[object, ...] = field(default=(), repr=False)


class Room:
    """Room for the newest tokens of one text, and how those before them are read.

    Args:
        states: keys and values [1, heads, capacity, head_dim], float32 or bfloat16.
    """

    def __init__(self, states: tuple[Tensor, Tensor]) -> None:
        self.states, (keys, values) = states, states
        halved = keys.dtype == torch.bfloat16
        self._structure = RoomStructure(
            keys.data_ptr(), values.data_ptr(), keys.shape[2], halved, None, 0, 0, 0, None
        )
        self._past: tuple[object, ...] = ()
        self.address = ctypes.addressof(self._structure)
        """Of what the extension reads."""

    def follow(self, tokens: int, piece: int, keys: States, values: States) -> None:
        """Put so many tokens before those in the room, read `piece` at a time."""
        functions = [
            ctypes.cast(getattr(extension.library(), one.function), Address).value
            for one in (keys, values)
        ]
        structures = [ctypes.addressof(one.structure) for one in (keys, values)]
        past = PastStructure(tokens, piece, *functions, *structures)
        self._past = past, keys, values
        self._structure.past = ctypes.addressof(past)

    def see(self, sinks: int, reach: int, gone: int) -> None:
        """Let a token see the first ones and those less than `reach` before it.

        Args:
            sinks: first tokens.
            reach: of each token.
            gone: tokens after the first that are in the room no more.
        """
        structure = self._structure
        structure.sinks, structure.reach, structure.gone = sinks, reach, gone

    def note(self, queries: Tensor | None) -> None:
        """Have the next queries written into [tokens, query heads, head_dim], float32, or none."""
        self._noted = queries
        self._structure.asked = None if queries is None else queries.data_ptr()

    @property
    def before(self) -> int:
        """Tokens before those in the room."""
        return self._past[0].tokens if self._past else 0


class Rooms(tuple[object, ...]):
    """What a step is given for each block; where the rooms are is put together once."""

    @cached_property
    def addresses(self) -> ctypes.Array[ctypes.c_void_p]:
        """As a step takes them; what is no room is none."""
        found = [one.address if isinstance(one, Room) else None for one in self]
        return (Address * len(found))(*found)
