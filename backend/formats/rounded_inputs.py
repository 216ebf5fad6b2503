"""A matrix whose activations are scaled, ordered, turned and rounded to few bits beforehand.

Few tokens on a processor meet it as integers, where it is held as codes: their codes are multiplied
and their steps come after. Elsewhere the product is made of the rounded values as numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from backend.formats.base import FEW, Format, empty
from backend.formats.dense import Dense
from backend.formats.remembered import remembered
from kernels import rounding
from kernels.products import Product

WHOLE = 16
"""Bits of an activation that is left as it is."""
WIDE = 8
TINY = 1e-12


class RoundedInputs(Format):
    """A matrix of inputs that are rounded token by token, each block of them with its own step.

    Columns may be divided by numbers of their own, put into another order, and every run of a * b
    of them be turned by two small matrices, x to P1^T x P2 with x as [a, b]; the matrix held is
    that of the inputs as they are then.
    """

    key = "rounded-inputs"
    reach: Tensor
    order: Tensor | None
    divisors: Tensor | None

    def __init__(
        self,
        rows: int,
        columns: int,
        held: Format,
        left: Format | None = None,
        right: Format | None = None,
        *,
        bits: int,
        block: int,
        wide: int = 0,
        ordered: bool = False,
        divided: bool = False,
        odd: bool = False,
    ) -> None:
        super().__init__(rows, columns)
        if not 2 <= bits <= WHOLE or block < 1 or not 0 <= wide <= columns:
            raise ValueError(f"Inputs are rounded to 2 to {WHOLE} bits in blocks, not {bits}.")
        self.input_bits, self.block, self.wide, self.odd = bits, block, wide, odd
        self.held, self.left, self.right = held, left, right
        if (left is None) != (right is None) or columns % self.turned:
            raise ValueError(f"Two matrices turn whole runs of {columns} columns, or none does.")
        self.register_buffer("reach", empty(1, dtype=torch.float32))
        order = empty(columns, dtype=_places(columns)) if ordered else None
        self.register_buffer("order", order)
        divisors = empty(columns, dtype=torch.bfloat16) if divided else None
        self.register_buffer("divisors", divisors)

    @classmethod
    def pack(
        cls,
        held: Format,
        turns: tuple[Tensor, Tensor] | None = None,
        *,
        bits: int,
        block: int = 0,
        wide: int = 0,
        reach: float = 1.0,
        order: Tensor | None = None,
        divisors: Tensor | None = None,
        odd: bool = False,
    ) -> Self:
        """Hold the matrix of inputs that are divided, ordered, turned and then rounded.

        Args:
            held: the matrix of the inputs as they are by then.
            turns: P1 [a, a] and P2 [b, b], kept in bfloat16; None for none.
            bits: of an input, 16 for one left as it is.
            block: columns that share a step; 0 for all.
            wide: of the first columns, which have 8 bits.
            reach: of the largest input of a block, what the largest code stands for.
            order: old places of the columns, [columns]; None where they stay.
            divisors: of each column before it is put in order, [columns], kept in bfloat16.
            odd: codes are odd numbers of half steps (bipolar integers), none of them zero.
        """
        left, right = (None, None) if turns is None else map(Dense.pack, turns)
        rest: dict[str, Any] = {"bits": bits, "block": block or held.columns}
        rest |= {"wide": wide, "odd": odd}
        rest |= {"ordered": order is not None, "divided": divisors is not None}
        made = cls(*held.shape, held, left, right, **rest)
        device = next(held.buffers()).device
        made.reach = torch.tensor([reach], dtype=torch.float32, device=device)
        made.order = None if order is None else order.to(_places(held.columns))
        made.divisors = None if divisors is None else divisors.to(torch.bfloat16)
        return made

    def settings(self) -> dict[str, Any]:
        """Bits of inputs, block, wide columns, and whether there are an order and divisors."""
        ordered, divided = self.order is not None, self.divisors is not None
        rest = {"bits": self.input_bits, "block": self.block, "wide": self.wide}
        return {**rest, "ordered": ordered, "divided": divided, "odd": self.odd}

    @property
    def turned(self) -> int:
        """Columns that are turned together; one where none is."""
        if self.left is None or self.right is None:
            return 1
        return self.left.columns * self.right.columns

    def fitting(self) -> dict[str, tuple[int, int]]:
        """As many rows and columns as outside, and square matrices that turn."""
        wanted = {"held": self.shape}
        for name, part in (("left", self.left), ("right", self.right)):
            if part is not None:
                size = self._sizes[name == "right"]
                wanted[name] = size, size
        return wanted

    @property
    def _sizes(self) -> tuple[int, int]:
        """Sides of the matrices that turn."""
        assert self.left is not None
        assert self.right is not None
        return self.left.rows, self.right.columns

    def check(self) -> None:
        """The order has every column once."""
        super().check()
        places = torch.arange(self.columns, device=self.reach.device)
        if self.order is not None and not torch.equal(self.order.long().sort().values, places):
            raise ValueError(f"An order does not have each of {self.columns:,} columns once.")

    def seen(self, activation: Tensor) -> Tensor:
        """What the matrix held is multiplied by, float32: divided, ordered, turned, rounded."""
        found = activation.to(torch.float32)
        if self.divisors is not None:
            found = found / self.divisors.to(torch.float32)
        if self.order is not None:
            found = found[..., self.order.long()]
        if self.left is not None and self.right is not None:
            found = turn(found, self.left.dense(), self.right.dense())
        nearest = _odd if self.odd else torch.round
        return rounded(found, self._tops(), self.block, self.reach, nearest)

    def _tops(self) -> Tensor | None:
        """The largest code of each block; None where nothing is rounded."""
        if self.input_bits == WHOLE:
            return None
        blocks = -(-self.columns // self.block)
        tops = torch.full((blocks,), largest(self.input_bits), device=self.reach.device)
        tops[: -(-self.wide // self.block)] = largest(WIDE)
        return tops + 0.5 if self.odd else tops

    def multiply(self, activation: Tensor) -> Tensor:
        """The product of what is seen with the matrix held."""
        few = activation.numel() <= FEW * self.columns and not activation.requires_grad
        here = few and activation.device.type == "cpu"
        product = remembered(self, self.product) if here else None
        if product is not None:
            return product(activation).to(activation.dtype)
        return self.held.multiply(self.seen(activation).to(activation.dtype))

    def product(self) -> Product | None:
        """Divided, ordered, turned and rounded within a step; of codes where those are held."""
        matrix = self.held.matrix()
        held = self.held.product() if matrix is None else matrix.product()
        if held is None:
            return None
        turns = None
        if self.left is not None and self.right is not None:
            turns = self.left.dense(), self.right.dense()
        how = rounding.Rounding(self.input_bits, self.block, self.wide, float(self.reach), self.odd)
        return rounding.product(how, matrix, held, self.order, turns, self.divisors)

    def dense(self) -> Tensor:
        """The matrix that inputs would meet if they were not rounded, float32."""
        found = self.held.dense()
        if self.left is not None and self.right is not None:
            found = turn(found, self.left.dense().T, self.right.dense().T)
        if self.order is not None:
            ordered = found
            found = torch.empty_like(ordered)
            found[:, self.order.long()] = ordered
        return found if self.divisors is None else found / self.divisors.to(torch.float32)


def _places(columns: int) -> torch.dtype:
    """What holds the place of one of so many columns."""
    return torch.int16 if columns <= 1 << 15 else torch.int32


def largest(bits: int) -> float:
    """The largest code of so many bits, one of which is the sign."""
    return float((1 << (bits - 1)) - 1)


def _odd(values: Tensor) -> Tensor:
    """The nearest halves that are no whole numbers."""
    return values.floor() + 0.5


def turn(states: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Every run of a * b numbers x of states [..., columns] as left^T x right, x being [a, b]."""
    parts = states.unflatten(-1, (-1, len(left), len(right)))
    return (left.T @ parts @ right).flatten(-3)


def rounded(
    states: Tensor,
    tops: Tensor | None,
    block: int,
    reach: Tensor,
    nearest: Callable[[Tensor], Tensor] = torch.round,
) -> Tensor:
    """States [..., columns] at the nearest steps of their block.

    Args:
        states: of tokens.
        tops: the largest code of each block, the lowest being one less than its opposite.
        block: columns of one.
        reach: what the largest code stands for, as a share of the largest of the block.
        nearest: the nearest whole number.
    """
    if tops is None:
        return states
    columns = states.shape[-1]
    padded = torch.nn.functional.pad(states, (0, -columns % block)).unflatten(-1, (-1, block))
    tops = tops.unsqueeze(-1)
    step = (reach * padded.abs().amax(-1, keepdim=True) / tops).clamp(min=TINY)
    lowest = -tops if nearest is _odd else -tops - 1
    codes = torch.minimum(torch.maximum(nearest(padded / step), lowest), tops)
    return (codes * step).flatten(-2)[..., :columns]
