"""Tokens of a text through all blocks of a Llama-shaped model by one call, in float32.

A product is a function of the extension and the matrix it multiplies by; products compose (one
after another, added, rows put in their places), so that whatever is held in parts is multiplied
in parts. Where there is no extension there are no products, and the caller steps by torch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels import extension
from kernels.rooms import Room, addresses

TOKENS = 64
"""Of one call: a draft's tree and the token before it; more are quicker by dense products."""


class ProductStructure(ctypes.Structure):
    """`Product` of kernels/cpu/decode_step.h."""

    _fields_ = (
        ("multiply", ctypes.c_void_p),
        ("matrix", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
    )


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
        ("attend", _AttendFunction),
        ("scratch", ctypes.c_void_p),
    )


class _Parts(ctypes.Structure):
    _fields_ = (("of", ctypes.POINTER(ProductStructure)), ("count", ctypes.c_int64))


class _Placed(ctypes.Structure):
    _fields_ = (
        ("parts", _Parts),
        ("places", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
    )


@dataclass(frozen=True)
class Product:
    """A matrix that a step can multiply by, and what must stay alive as long as it does."""

    structure: ProductStructure
    kept: tuple[object, ...] = field(default=(), repr=False)

    @property
    def rows(self) -> int:
        """Outputs."""
        return self.structure.rows

    @property
    def columns(self) -> int:
        """Inputs."""
        return self.structure.columns

    def plus(self, bias: Tensor | None) -> Product:
        """The same with a bias [rows] added, to the one that it may have."""
        if bias is None:
            return self
        one = self.structure
        bias = bias.detach().to(torch.float32).contiguous()
        if one.bias:
            bias = bias + self.kept[-1]
        whole = ProductStructure(one.multiply, one.matrix, bias.data_ptr(), one.rows, one.columns)
        return Product(whole, (*self.kept, bias))

    def __call__(self, activation: Tensor) -> Tensor:
        """Outputs [..., rows] of activations [..., columns], float32."""
        x = activation.to(torch.float32).contiguous()
        y = torch.empty(*x.shape[:-1], self.rows)
        kinds = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
        function = ctypes.CFUNCTYPE(None, *kinds)(self.structure.multiply)
        count = x.numel() // self.columns
        function(self.structure.matrix, x.data_ptr(), count, y.data_ptr())
        if self.structure.bias:
            y += self.kept[-1]
        return y


def made(
    function: str, matrix: ctypes.Structure, rows: int, columns: int, *kept: object
) -> Product | None:
    """A product by a function of the extension; None where there is no extension."""
    library = extension.library()
    if library is None:
        return None
    address = ctypes.cast(getattr(library, function), ctypes.c_void_p).value
    structure = ProductStructure(address, ctypes.addressof(matrix), None, rows, columns)
    return Product(structure, (matrix, *kept))


def chain(*parts: Product | None) -> Product | None:
    """One product after another, the first applied first."""
    if None in parts:
        return None
    held = _parts(parts)
    return made("multiply_chain", held, parts[-1].rows, parts[0].columns, parts)


def total(*parts: Product | None) -> Product | None:
    """Products of one shape, added."""
    if None in parts:
        return None
    return made("multiply_sum", _parts(parts), parts[0].rows, parts[0].columns, parts)


def placed(places: Tensor, *parts: Product | None) -> Product | None:
    """Rows `places` [rows] of products whose rows follow each other; any may be taken twice."""
    if None in parts:
        return None
    places = places.to(torch.int64).contiguous()
    matrix = _Placed(_parts(parts), places.data_ptr(), places.numel())
    return made("multiply_placed", matrix, matrix.rows, parts[0].columns, places, parts)


def _parts(parts: Sequence[Product]) -> _Parts:
    """Keeps its array alive by itself."""
    return _Parts((ProductStructure * len(parts))(*(part.structure for part in parts)), len(parts))


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
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        head_dim: int,
        last: Norm,
        head: Product,
        last_shortcut: Product | None = None,
    ) -> None:
        self._kept = (blocks, last, head, last_shortcut)
        self._blocks = (BlockStructure * len(blocks))()
        for structure, block in zip(self._blocks, blocks, strict=True):
            for name, norm in block.norms.items():
                setattr(structure, name, norm.structure)
            for name, product in block.products.items():
                setattr(structure, name, product.structure)
            structure.scale = block.scale
        every = [one for block in blocks for one in block.products.values()]
        self._widest = max(max(one.rows, one.columns) for one in every)
        self._head_dim, self._vocabulary = head_dim, head.rows
        shortcut = last_shortcut.structure if last_shortcut else ProductStructure()
        self._attend = _AttendFunction(self._answer)
        self._step = _Step(
            self._blocks, len(blocks), head_dim, self._widest,
            last.structure, shortcut, head.structure, self._attend, None,
        )  # fmt: skip
        self._scratch = torch.empty(0)
        self._asked: Sequence[Place] = ()
        self._failure: BaseException | None = None
        self._count = 0

    def __call__(
        self,
        stream: Tensor,
        turns: tuple[Tensor, Tensor],
        position: int,
        rooms: Sequence[Place],
        among: Tensor | None = None,
    ) -> Tensor:
        """Logits [tokens, vocabulary]; the tokens' keys and values are written into the rooms.

        Args:
            stream: the tokens' embeddings [tokens, channels], float32; written over.
            turns: cosines and sines [tokens, head_dim] of their positions, float32, those of the
                first half negative.
            position: tokens before them.
            rooms: of each block.
            among: [tokens, tokens], bool, which of the new tokens each may see in a room; None
                for those up to itself.
        """
        count = stream.shape[0]
        needed = 6 * count * self._widest
        if self._scratch.numel() < needed:
            self._scratch = torch.empty(2 * needed)
            self._step.scratch = self._scratch.data_ptr()
        turns = tuple(part.contiguous() for part in turns)
        among = None if among is None else among.contiguous()
        logits = torch.empty(count, self._vocabulary)
        self._asked, self._count = rooms, count
        extension.library().decode_step(
            ctypes.byref(self._step),
            addresses(rooms),
            *(ctypes.c_void_p(part.data_ptr()) for part in (stream, *turns)),
            ctypes.c_int64(position),
            ctypes.c_int64(count),
            ctypes.c_void_p(None if among is None else among.data_ptr()),
            ctypes.c_void_p(logits.data_ptr()),
        )
        self._asked = ()
        if failure := self._failure:
            self._failure = None
            raise failure
        return logits

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


def fits(head_dim: int) -> bool:
    """Whether a step can be made here for heads of this size."""
    return head_dim % 2 == 0 and extension.library() is not None


def mean_square_norm(weight: Tensor, epsilon: float) -> Norm:
    """The usual norm of a weight [width]."""
    held = weight.detach().to(torch.float32).contiguous()
    return Norm(held.numel(), float(held.numel()), epsilon, held)
