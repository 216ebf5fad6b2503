"""A matrix as a chain of small tensors: a matrix product operator (arXiv 2401.14109)."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor

from backend.formats.base import Format
from backend.formats.dense import Dense
from kernels import products
from kernels.products import Product


class TensorTrain(Format):
    """Rows and columns are written as digits; each core joins a digit of both to its neighbours.

    Core k is a tensor [bond before, row digit, column digit, bond after], held as a matrix of
    [bond before * row digit, column digit * bond after] in a format of its own.
    """

    key = "tensor-train"

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        row_digits: list[int],
        column_digits: list[int],
        bonds: list[int],
        **cores: Format,
    ) -> None:
        super().__init__(rows, columns)
        if any(type(one) is not int or one < 1 for one in (*row_digits, *column_digits, *bonds)):
            raise ValueError(f"Digits and bonds are whole and 1 or more, not {bonds}.")
        if math.prod(row_digits) != rows or math.prod(column_digits) != columns:
            raise ValueError(
                f"Digits {row_digits} and {column_digits} make no matrix {rows} x {columns}."
            )
        self.row_digits, self.column_digits = list(row_digits), list(column_digits)
        self.bonds = list(bonds)  # between cores, one fewer than these
        for name, core in cores.items():
            self.add_module(name, core)
        for name, wanted in self.fitting().items():
            if cores[name].shape != wanted:
                raise ValueError(f"A core of {wanted} is no matrix {cores[name].shape}.")

    @classmethod
    def pack(cls, cores: list[Tensor], formats: list[Format] | None = None) -> Self:
        """Hold cores [bond, row digit, column digit, bond] in bfloat16, or as they are held."""
        held = formats or [Dense.pack(core.flatten(2).flatten(0, 1)) for core in cores]
        row_digits, column_digits = ([core.shape[axis] for core in cores] for axis in (1, 2))
        return cls(
            math.prod(row_digits),
            math.prod(column_digits),
            row_digits=row_digits,
            column_digits=column_digits,
            bonds=[core.shape[3] for core in cores[:-1]],
            **{f"core{place}": one for place, one in enumerate(held)},
        )

    def settings(self) -> dict[str, Any]:
        """Digits of both sides and the bonds between cores."""
        digits = {"row_digits": self.row_digits, "column_digits": self.column_digits}
        return digits | {"bonds": self.bonds}

    def shapes(self) -> list[tuple[int, int, int, int]]:
        """Of each core: bond before, row digit, column digit, bond after."""
        before, after = [1, *self.bonds], [*self.bonds, 1]
        return list(zip(before, self.row_digits, self.column_digits, after, strict=True))

    def fitting(self) -> dict[str, tuple[int, int]]:
        """Cores as their digits and bonds have it."""
        shapes = zip(self.inner(), self.shapes(), strict=True)
        return {name: (one[0] * one[1], one[2] * one[3]) for name, one in shapes}

    def cores(self) -> list[Tensor]:
        """Each core as it is contracted, float32."""
        held = self.inner().values()
        return [core.dense().view(shape) for core, shape in zip(held, self.shapes(), strict=True)]

    def dense(self) -> Tensor:
        """The matrix in float32."""
        total = torch.ones(1, 1, 1, device=next(self.buffers()).device)
        for core in self.cores():  # [rows so far, columns so far, bond]
            total = torch.einsum("rcb,bijd->ricjd", total, core)
            total = total.flatten(0, 1).flatten(1, 2)
        return total.view(self.shape)

    def multiply(self, activation: Tensor) -> Tensor:
        """Contract the activations with one core after another; the matrix is never made.

        From whichever end takes fewer multiplications.
        """
        flat = activation.reshape(-1, self.columns)
        forward, backward = self._costs()
        found = self._from_first(flat) if forward <= backward else self._from_last(flat)
        return found.reshape(*activation.shape[:-1], self.rows)

    def _costs(self) -> tuple[int, int]:
        """Multiplications a token, beginning with the first core and with the last."""
        shapes = self.shapes()
        forward = backward = 0
        for place, shape in enumerate(shapes):
            rows, columns = self.row_digits, self.column_digits
            forward += math.prod((*rows[:place], *columns[place + 1 :], *shape))
            backward += math.prod((*columns[:place], *rows[place + 1 :], *shape))
        return forward, backward

    def _from_first(self, flat: Tensor) -> Tensor:
        state = flat.unsqueeze(1)  # [tokens and rows so far, bond, columns to come]
        for core, (before, digit, across, after) in zip(self.cores(), self.shapes(), strict=True):
            count, _, rest = state.shape
            read = state.reshape(count, before * across, rest // across).mT
            map_ = core.transpose(1, 2).reshape(before * across, digit * after)
            found = (read @ map_.to(flat.dtype)).mT  # [.., row digit and bond, columns to come]
            state = found.reshape(count * digit, after, rest // across)
        return state

    def _from_last(self, flat: Tensor) -> Tensor:
        state = flat[:, :, None, None]  # [tokens, columns to come, bond, rows so far]
        ends = zip(reversed(self.cores()), reversed(self.shapes()), strict=True)
        for core, (before, digit, across, after) in ends:
            count, rest, _, done = state.shape
            read = state.reshape(count * rest // across, across * after, done).mT
            map_ = core.permute(2, 3, 0, 1).reshape(across * after, before * digit)
            found = (read @ map_.to(flat.dtype)).mT  # [.., bond and row digit, rows so far]
            state = found.reshape(count, rest // across, before, digit * done)
        return state

    def product(self) -> Product | None:
        """As above, in a decode step, from the last core on: each is multiplied as it is held."""
        rest, done, parts = self.columns, 1, []
        held = zip(self.inner().values(), self.column_digits, self.row_digits, strict=True)
        for core, across, digit in reversed([*held]):
            rest //= across
            parts.append(products.repeated(core.product(), rest, done))
            done *= digit
        return products.chain(*parts)

    @property
    def speed(self) -> str:
        """Runs core by core as it lies, but for cores in formats that no step reads apart."""
        dense = all(isinstance(part, Dense) for part in self.inner().values())
        return "measured" if dense else super().speed
