"""What quantisers to integer grids share: their place in a recipe and their settings."""

from __future__ import annotations

from dataclasses import dataclass

from backend.methods.base import LayerMethod, Outline, Stage, setting
from backend.methods.quantise import _grid


@dataclass(frozen=True)
class IntegerQuantiser(LayerMethod):
    """A method whose weights are integers in groups that share a scale."""

    stage = Stage.QUANTISE
    yields = ("integer-groups", "rows")

    bits: float = setting(
        4.25, "Bits per weight, scales and offsets counted.", low=_grid.LOWEST, high=_grid.HIGHEST
    )
    group_size: int = setting(
        128, "Weights that share a scale; 0 for a whole row.", choices=(0, 32, 64, 128, 256)
    )
    symmetric: bool = setting(
        False, "Spend no bits on an offset: the grid lies around zero.", choices=(False, True)
    )

    def outline(self, rows: int, columns: int) -> Outline:
        """Codes, scales and offsets of both widths, and a bit a row where there are two."""
        plan = _grid.plan(rows, columns, self.bits, self.group_size, self.symmetric)
        return Outline(plan.nbytes(rows, columns))
