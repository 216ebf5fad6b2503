"""Tokens of a text through all blocks of a Llama-shaped model by one call, in float32.

Where there is no extension there is no step, and the caller steps by torch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kernels import extension
from kernels.products import Product, ProductStructure
from kernels.rooms import Room, Rooms

TOKENS = 64
"""Of one call: a draft's tree and the token before it; more are quicker by dense products."""


class NormStructure(ctypes.Structure):
    """`Norm` of the header."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("width", ctypes.c_int64),
        ("divisor", ctypes.c_float),
        ("epsilon", ctypes.c_float),
    )


class BlockStructure(ctypes.Structure):
    """`Block` of the header."""

    _fields_ = (
        *((name, NormStructure) for name in ("before", "between", "query_norm", "key_norm")),
        *(
            (name, ProductStructure)
            for name in (
                *("query", "key", "value", "output", "gate", "up", "down"),
                *("attention_shortcut", "network_shortcut"),
            )
        ),
        ("scale", ctypes.c_float),
    )


_AttendFunction = ctypes.CFUNCTYPE(None, ctypes.c_int64)


class _Step(ctypes.Structure):
    _fields_ = (
        ("blocks", ctypes.POINTER(BlockStructure)),
        ("count", ctypes.c_int64),
        ("head_dim", ctypes.c_int64),
        ("widest", ctypes.c_int64),
        ("last", NormStructure),
        ("last_shortcut", ProductStructure),
        ("head", ProductStructure),
        ("embedding", ctypes.c_void_p),
        ("attend", _AttendFunction),
        ("scratch", ctypes.c_void_p),
        ("halved", ctypes.c_int64),
    )


Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes in queries [1, query heads, tokens, head_dim] with their new keys and values [1, heads,
tokens, head_dim] and returns what they find, shaped as the queries; float32."""
Place = Room | Attention | None
"""Where a block's keys and values are: in room that a step writes into, with who answers for
them, or nowhere, for a block without attention."""


@dataclass(frozen=True)
class Norm:
    """Divide by the root of the squares' sum over `divisor` plus epsilon, then times a weight.

    Attributes:
        width: channels.
        divisor: of the sum of squares.
        epsilon: added to the mean.
        weight: [width], float32; None for ones.
    """

    width: int
    divisor: float
    epsilon: float
    weight: Tensor | None = None

    @property
    def structure(self) -> NormStructure:
        """As the extension reads it."""
        address = None if self.weight is None else self.weight.data_ptr()
        return NormStructure(address, self.width, self.divisor, self.epsilon)


@dataclass(frozen=True)
class Block:
    """What a step does in one block; norms and products by the names of the header.

    Attributes:
        norms: of `before`, `between`, `query_norm`, `key_norm`, those that are there.
        products: of `query`, `key`, `value`, `output`, `gate`, `up`, `down` and the shortcuts.
        scale: what products of queries and keys are multiplied by.
    """

    norms: dict[str, Norm]
    products: dict[str, Product]
    scale: float


class Step:
    """All blocks of a model, ready to be run for a few tokens after others.

    Args:
        blocks: in order.
        head_dim: of keys and values.
        last: the norm before the head.
        head: gives the logits.
        last_shortcut: between them; None for none.
        embedding: rows of the tokens, a matrix of `kernels.layout`; None where tokens are given
            as embeddings.
        dtype: of the logits, float32 or bfloat16.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        head_dim: int,
        last: Norm,
        head: Product,
        last_shortcut: Product | None = None,
        embedding: Any = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._kept = (blocks, last, head, last_shortcut, embedding)
        self.embeds = embedding is not None
        self._blocks = (BlockStructure * len(blocks))()
        for structure, block in zip(self._blocks, blocks, strict=True):
            for name, norm in block.norms.items():
                setattr(structure, name, norm.structure)
            for name, product in block.products.items():
                setattr(structure, name, product.structure)
            structure.scale = block.scale
        every = [one for block in blocks for one in block.products.values()]
        self._widest = max(max(one.rows, one.columns) for one in every)
        self._head_dim, self._vocabulary, self._dtype = head_dim, head.rows, dtype
        shortcut = last_shortcut.structure if last_shortcut else ProductStructure()
        self._attend = _AttendFunction(self._answer)
        self._step = _Step(
            self._blocks, len(blocks), head_dim, self._widest,
            last.structure, shortcut, head.structure,
            embedding.address if self.embeds else None, self._attend, None,
            dtype == torch.bfloat16,
        )  # fmt: skip
        self._reference = ctypes.byref(self._step)
        self._scratch = torch.empty(0)
        self._asked: Sequence[Place] = ()
        self._failure: BaseException | None = None
        self._count = 0
        self._strange = f"Tokens of this model are 0 to {head.rows - 1}."

    def __call__(
        self,
        tokens: Tensor,
        turns: tuple[Tensor, Tensor],
        position: int,
        rooms: Sequence[Place],
        among: Tensor | None = None,
        places: Tensor | None = None,
        last: int | None = None,
    ) -> Tensor:
        """Logits [1, last, vocabulary] of the step's dtype; the rooms take keys and values in.

        Args:
            tokens: ids [tokens], whole numbers, or embeddings [tokens, channels], float32,
                which are written over.
            turns: cosines and sines [positions, head_dim] from the first position on, float32,
                those of the first half negative.
            position: tokens before them.
            rooms: of each block; `Rooms` that come again are read once.
            among: [tokens, tokens], bool, which of the new tokens each may see in a room; None
                for those up to itself.
            places: positions [tokens], int64; None where they follow each other.
            last: of how many last tokens logits are given; None for all.

        Raises:
            IndexError: an id is none of the vocabulary.
        """
        count = tokens.shape[0]
        last = count if last is None else last
        self._set_aside(count, last)
        if tokens.dim() == 1 and tokens.dtype != torch.int64:
            tokens = tokens.to(torch.int64)  # as the step reads them
        held = [None if part is None else part.contiguous() for part in (tokens, among, places)]
        first, seen, at = (None if part is None else part.data_ptr() for part in held)
        logits = torch.empty((1, last, self._vocabulary), dtype=self._dtype)
        ids, stream = (first, None) if tokens.dim() == 1 else (None, first)
        rooms = rooms if isinstance(rooms, Rooms) else Rooms(rooms)
        self._asked, self._count = rooms, count
        known = _function(extension.library())(
            self._reference, rooms.addresses, ids, stream, turns[0].data_ptr(),
            turns[1].data_ptr(), at, position, count, seen, last, logits.data_ptr(),
        )  # fmt: skip
        self._asked = ()
        if failure := self._failure:
            self._failure = None
            raise failure
        if not known:
            raise IndexError(self._strange)
        return logits

    def ahead(
        self,
        token: int,
        turns: tuple[Tensor, Tensor],
        position: int,
        rooms: Rooms,
        count: int,
        end: int | None = None,
    ) -> list[int]:
        """Feed a token and then each first choice; up to `count` choices, or to `end`.

        Args:
            token: an id.
            turns: as for one call, of all positions that are fed.
            position: tokens before it.
            rooms: of each block; none asks.
            count: 1 or more.
            end: after which nothing is chosen.

        Raises:
            IndexError: the id is none of the vocabulary.
        """
        self._set_aside(1, 1)
        written = (ctypes.c_int64 * count)()
        logits = torch.empty(self._vocabulary, dtype=self._dtype)
        found = _ahead(extension.library())(
            self._reference, rooms.addresses, token, turns[0].data_ptr(), turns[1].data_ptr(),
            position, count, -1 if end is None else end, written, logits.data_ptr(),
        )  # fmt: skip
        if not found:
            raise IndexError(self._strange)
        return written[:found]

    def _set_aside(self, count: int, last: int) -> None:
        """Room for what so many tokens need between products, and their last logits."""
        needed = count * 7 * self._widest + last * self._vocabulary
        if self._scratch.numel() < needed:
            self._scratch = torch.empty(2 * needed)
            self._step.scratch = self._scratch.data_ptr()

    def _answer(self, index: int) -> None:
        """Attention of a block that asks, from and into the scratch."""
        block, room = self._blocks[index], self._count * self._widest
        parts = self._scratch[: 4 * room].view(4, room)
        found, *asked = (
            part[: self._count * rows].view(1, self._count, -1, self._head_dim).transpose(1, 2)
            for part, rows in zip(
                parts,
                (block.query.rows, block.query.rows, block.key.rows, block.value.rows),
                strict=True,
            )
        )
        try:
            if self._failure is None:
                found.copy_(self._asked[index](*asked))
        except BaseException as error:  # noqa: BLE001 - raised again after the call
            self._failure = error


@cache
def _function(library: ctypes.CDLL) -> Callable[..., int]:
    """The step itself, which knows the kinds of what it is given."""
    address, number = ctypes.c_void_p, ctypes.c_int64
    kinds = ctypes.c_void_p, *[address] * 6, number, number, address, number, address
    return ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(("decode_step", library))


@cache
def _ahead(library: ctypes.CDLL) -> Callable[..., int]:
    """Several steps, each of the token that the one before chose."""
    address, number = ctypes.c_void_p, ctypes.c_int64
    kinds = address, address, number, address, address, *[number] * 3, address, address
    return ctypes.CFUNCTYPE(number, *kinds)(("write_tokens", library))


def fits(head_dim: int) -> bool:
    """Whether a step can be made here for heads of this size."""
    return head_dim % 2 == 0 and extension.library() is not None


def mean_square_norm(weight: Tensor, epsilon: float) -> Norm:
    """The usual norm of a weight [width]."""
    held = weight.detach().to(torch.float32).contiguous()
    return Norm(held.numel(), float(held.numel()), epsilon, held)
