"""Embedding and head: round the tables of tokens to integers of a few bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.base import Outline, Stage, TableMethod, setting
from backend.methods.quantise import _grid

if TYPE_CHECKING:
    from torch import Tensor

    from backend.formats import Format


@dataclass(frozen=True)
class Embedding(TableMethod):
    """Round the rows of tokens, and what the head multiplies by, to a few evenly spaced values.

    Methods for matrices leave both in 16 bits, which is a quarter and more of a small model with
    many words, and the head is read for each token written. Here they are held as `rtn` holds
    a matrix: in groups along each row, one scale to a group and a grid around zero. Where head
    and embedding are one, they stay one. No data is looked at. A budget between two code widths
    gives the rows with the largest rounding errors the wider codes.
    """

    stage = Stage.TABLES
    paper = "baseline"
    pace = 0.006
    claim = "Tables in 8 bits cost next to nothing; llama.cpp takes 6 or 8 bits for them."
    limits = "Blocks, norms and biases stay as they are, and tables that are held already."
    yields = ("integer-groups", "rows")

    bits: float = setting(8.5, "Bits per number of the tables, scales counted.", low=2.13, high=9.0)
    group_size: int = setting(
        128, "Numbers that share a scale; 0 for a whole row.", choices=(0, 32, 64, 128, 256)
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Codes and scales of both widths, and a bit a row where there are two."""
        return Outline(self._plan(rows, columns).nbytes(rows, columns))

    def hold(self, table: Tensor) -> Format:
        """Round a table [vocabulary, width]."""
        return _grid.nearest(table, self._plan(*table.shape))

    def _plan(self, rows: int, columns: int) -> _grid.Plan:
        return _grid.plan(rows, columns, self.bits, self.group_size, symmetric=True)
