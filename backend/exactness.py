"""Proof that an artefact holds weights to the bit, where all that was done is to encode them."""

from __future__ import annotations

from torch import nn

from backend.measure import lossless
from backend.measure.reading import Reading
from backend.methods.base import ModelMethod, TableMethod
from backend.models.encoding import weights
from backend.models.precision import DEPLOYED
from backend.models.view import View
from backend.recipes import Recipe


def promised(recipe: Recipe) -> bool:
    """Whether a recipe encodes the weights and does nothing else to them."""
    changing = ModelMethod | TableMethod
    changed = recipe.weight_methods or any(isinstance(one, changing) for one in recipe.stages)
    return recipe.encoder is not None and not changed


def readings(dense: nn.Module, model: nn.Module) -> list[Reading]:
    """`lossless_l0`: tensors of a model, decoded, that differ from the dense one's in any bit.

    Both are taken in the type of deployment; a copy in float32 holds the same numbers.
    """
    sides = (
        {
            name: tensor.to(DEPLOYED) if tensor.is_floating_point() else tensor
            for name, tensor in weights(View(one)).items()
        }
        for one in (dense, model)
    )
    return lossless.weight_readings(lossless.compare_bits(*sides))
