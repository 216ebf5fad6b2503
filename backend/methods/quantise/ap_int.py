"""AP-INT: weights and inputs as sums of plus and minus ones, of any number of bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.later import torch
from backend.methods import _surgeon
from backend.methods.base import LayerMethod, Needs, Outline, Stage, setting
from backend.methods.quantise import _grid, _tables

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

WIDTHS = (1, 2, 3, 4, 5, 6)
REACH = 4  # bytes of how far inputs reach


@dataclass(frozen=True)
class ApInt(LayerMethod):
    """Hold weights and inputs as bipolar integers, whose every bit is a plus or a minus one.

    A bit that is not set stands for minus one, not for nothing. So values lie evenly on both sides
    of zero, no offset has to be held or added, and a product of any two widths is a sum of
    products of planes of signs, all made alike. Every group of weights tries how far its values
    should reach, an error counting by how loud its input is; codes are then chosen column by
    column, those after it making good each error (GPTQ). Inputs are rounded the same way, token
    by token, while the model runs. A budget between two widths gives some rows the wider codes.
    """

    stage = Stage.QUANTISE
    needs = Needs.HESSIAN
    pace = 1.1
    paper = "arXiv 2409.17870"
    claim = "2.4x faster products than CUTLASS, up to 6.7x faster inference."
    limits = (
        "The numbers are bipolar, their product is not made plane by plane: that takes tensor "
        "cores. On a processor codes are multiplied by codes as integers of 8 bits, so that fewer "
        "bits of inputs save no time; more than 64 tokens at once, and all on a GPU, are rounded "
        "but multiplied as numbers. There is no zero among bipolar ones. Without a compiler, or on "
        "a GPU, tokens that are verified together are summed in another order than one by one, so "
        "that an input between two steps may take the other and a drafted token differ."
    )
    yields = ("rounded-inputs",)

    bits: float = setting(4.25, "Bits per weight, scales and tables counted.", low=1.25, high=6.25)
    inputs: int = setting(
        8, "Bits of an input while the model runs; 16 leaves it.", choices=(3, 4, 6, 8, 16)
    )
    group_size: int = setting(
        128, "Weights that share a scale; 0 for a whole row.", choices=(0, 32, 64, 128, 256)
    )

    damping: float = setting(
        0.01, "Share of the mean diagonal added to the Hessian.", low=1e-4, high=1.0
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Codes, scales and tables, a bit a row where there are two widths, and the reach."""
        split = self._split(rows, columns)
        return Outline(_tables.nbytes((rows, columns), self._size(columns), split) + REACH)

    def fit(self, weight: Tensor, statistics: InputStatistics) -> Format:
        """Round a weight [rows, columns] against the Hessian of its inputs."""
        split, size = self._split(*weight.shape), self._size(weight.shape[1])
        weight = statistics.alive(weight)
        counts = statistics.mean_squares.expand(weight.shape)
        held = _tables.hold(weight, size, split, counts, bipolar)
        factor = statistics.inverse_factor(self.damping)
        if isinstance(held, formats.Rows):
            mask = held.fine_rows()
            parts = (mask, held.fine), (~mask, held.coarse)
            held = formats.Rows.pack(
                mask, *(_swept(weight[own], one, factor) for own, one in parts)
            )
        else:
            held = _swept(weight, held, factor)
        return formats.RoundedInputs.pack(held, bits=self.inputs, odd=True)

    def _size(self, columns: int) -> int:
        return min(self.group_size or columns, columns)

    def _split(self, rows: int, columns: int) -> _tables.Split:
        """How many rows have codes how wide.

        Raises:
            OutOfReachError: one-bit codes take more than the budget.
        """
        size, shape = self._size(columns), (rows, columns)
        found = _tables.widths(shape, self.bits * rows * columns - 8 * REACH, size, WIDTHS)
        if found is None:
            least = -(-8 * (_tables.nbytes(shape, size, (1, 1, 0)) + REACH) // rows)
            raise _grid.too_little(rows, columns, self.bits, least, f"in groups of {size}")
        return found


def _swept(weight: Tensor, held: Format, factor: Tensor) -> Format:
    """The same table and scales, each column's error mended by those after it (GPTQ)."""
    assert isinstance(held, formats.TableCodes)
    table, size = held.entries(), held.group_size
    scales = held.scales.dense().T.contiguous()
    columns = _surgeon.columns_of(weight)
    codes = torch.empty(columns.shape, dtype=torch.uint8, device=weight.device)

    def treat(place: int, values: Tensor) -> Tensor:
        step = scales[place // size]
        found = _tables.nearest(values / step, table)
        codes[place] = found.to(torch.uint8)
        return table[found] * step

    _surgeon.sweep(columns, factor, treat)
    return formats.TableCodes.pack(codes.T.contiguous(), table, scales.T, size)


def bipolar(shares: Tensor, width: int) -> Tensor:
    """Sums of plus and minus 1/2, 1/4 and so on, [2**width], rising: odd over a power of two."""
    return (2 * torch.arange(1 << width, device=shares.device) + 1 - (1 << width)) / (1 << width)
