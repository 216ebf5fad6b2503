"""How many neurons of each feed-forward network a budget for the whole model keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.errors import ModelError

if TYPE_CHECKING:
    from backend.methods.anatomy import Anatomy
    from backend.models.units import Group

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
