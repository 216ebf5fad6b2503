"""What quantisers to integer grids share: their place in a recipe and their settings."""

from __future__ import annotations

from dataclasses import dataclass

from backend.methods.base import LayerMethod, Stage, setting
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
