"""Which neurons of each feed-forward network a budget for the whole model keeps, and the cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.errors import ModelError
from backend.later import torch

if TYPE_CHECKING:
    from torch import Tensor

    from backend.methods.anatomy import Anatomy
    from backend.models.units import Group
    from backend.models.view import View

HALVINGS = 800  # of an interval of up to 2^723 at the steepest, down to a neuron and beyond


def least(key: str, bits: float, anatomy: Anatomy) -> int:
    """Numbers that stay with one neuron of each feed-forward network, and all else.

    Raises:
        ModelError: no neurons are found at all.
    """
    neurons = [one for one in anatomy.units if one.neurons]
    if not neurons:
        raise ModelError(f"{key} finds no neurons in this model; take svd or lord.")
    if bits >= 16:
        return 0  # nothing is cut
    return anatomy.numbers - sum((one.count - 1) * one.cost for one in neurons)


def counts(bits: float, numbers: int, groups: list[Group], shares: list[float]) -> list[int]:
    """How many neurons of each group stay, one at least, all within the budget.

    Args:
        bits: per original number of the model.
        numbers: of the whole model.
        groups: neurons that one linear reads.
        shares: of each group's neurons that stay, up to one factor for all.
    """
    spare = int(bits / 16 * numbers) - numbers

    def at(height: float) -> list[int]:
        return [
            max(1, min(group.units, int(height * share * group.units)))
            for group, share in zip(groups, shares, strict=True)
        ]

    def gone(kept: list[int]) -> int:
        return sum(
            (group.units - count) * group.cost for group, count in zip(groups, kept, strict=True)
        )

    low, high = 0.0, 2 / min(shares)
    if spare >= 0:
        return at(high)
    for _ in range(HALVINGS):
        height = (low + high) / 2
        low, high = (low, height) if gone(at(height)) < -spare else (height, high)
    return at(low)


def cut(
    view: View, groups: list[Group], places: list[Tensor], unknown: list[str]
) -> dict[str, Any]:
    """Keep the neurons at these places of each group; the record from which `rebuild` does it.

    Args:
        view: the model.
        groups: neurons that one linear reads.
        places: of the neurons of each group that stay.
        unknown: names of what has no neurons, for a remark.
    """
    from backend.models import units

    kept = {}
    for group, chosen in zip(groups, places, strict=True):
        stay = torch.zeros(group.units, dtype=torch.bool)
        stay[chosen.cpu()] = True
        units.cut(view, group, stay, None, biased=False)
        kept[group.reader] = stay.tolist()
    left = [f"{name}: no neurons found; left whole." for name in unknown]
    return {"kept": kept, "remarks": left}


def rebuild(view: View, record: dict[str, Any]) -> None:
    """Give a skeleton the shapes that `cut` left."""
    from backend.models import units

    for group in units.find(view)[0]:
        if group.neurons:
            units.cut(view, group, torch.tensor(record["kept"][group.reader]), None, biased=False)
