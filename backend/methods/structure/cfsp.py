"""CFSP: narrower feed-forward networks, most of all in blocks that hardly turn what they read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.later import torch
from backend.methods.base import ModelMethod, Needs, Stage, setting
from backend.methods.structure import _neurons

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.walk import Walk
    from backend.methods.anatomy import Anatomy
    from backend.models.units import Group
    from backend.models.view import View


@dataclass(frozen=True)
class Cfsp(ModelMethod):
    """Remove neurons, more of them from blocks that turn the stream least, by one forward pass.

    Coarse: a block matters as much as the angle between what flows into it and out of it, and
    keeps a share of its neurons that rises with that by a sigmoid. Fine: within a block a neuron
    counts by its weights relative to those of the other neurons, those that read it times how loud
    it is, all of that times its loudness once more. Attention stays whole, and nothing is added to
    make up for what is gone.
    """

    stage = Stage.RESHAPE
    needs = Needs.NORMS
    paper = "arXiv 2409.13199"
    claim = "Beats LLM-Pruner, SliceGPT and FLAP at 20 to 50 % with one forward pass."
    limits = (
        "Recovery by fine-tuning, in which blocks that matter get higher ranks, is left out. Only "
        "feed-forward networks shrink, so that small models with large tables reach less far."
    )
    yields = ("dense",)

    bits: float = setting(
        13.0, "Bits per original number of the model, 16 for each that stays.", low=1.0, high=16.0
    )
    sharpness: float = setting(
        26.2,
        "How steeply a block's share rises with its angle, in half turns; 0 gives all the same.",
        low=0.0,
        high=500.0,
    )

    def least(self, anatomy: Anatomy) -> int:
        """One neuron of each feed-forward network, and all else.

        Raises:
            ModelError: no neurons are found at all.
        """
        return _neurons.least(self.key(), self.bits, anatomy)

    def rewrite(self, walk: Walk) -> dict[str, Any]:
        """Cut the model of a walk.

        Raises:
            ModelError: no neurons are found at all.
            OutOfReachError: one neuron a network takes more than the budget.
        """
        from backend.models import units

        view = walk.view
        self.check(view.anatomy())
        found, unknown = units.find(view)
        groups = [group for group in found if group.neurons]
        angles, scores = _observe(walk, groups)
        places = [
            scores[group.reader].topk(count).indices
            for group, count in zip(groups, self.counts(view.numbers, groups, angles), strict=True)
        ]
        record = _neurons.cut(view, groups, places, unknown)
        walk.restart()
        return record

    @classmethod
    def rebuild(cls, view: View, record: dict[str, Any]) -> None:
        """Give a skeleton the same shapes."""
        _neurons.rebuild(view, record)

    def counts(self, numbers: int, groups: list[Group], angles: list[float]) -> list[int]:
        """How many neurons of each group stay, one at least, all within the budget.

        Args:
            numbers: of the whole model.
            groups: neurons that one linear reads.
            angles: of each block, in half turns.
        """
        middle = sum(angles) / len(angles)
        shares = [1 / (1 + math.exp(self.sharpness * (middle - angle))) for angle in angles]
        own = [shares[group.block] for group in groups]
        return _neurons.counts(self.bits, numbers, groups, own)


def _observe(walk: Walk, groups: list[Group]) -> tuple[list[float], dict[str, Tensor]]:
    """How far each block turns the stream, in half turns, and scores of neurons by reader."""
    angles, scores = [], {}
    for block in range(len(walk.view.blocks)):
        seen = walk.gather(block, Needs.NORMS)
        for group in groups:
            if group.block == block:
                loudness = seen[group.reader].mean_squares.sqrt()
                scores[group.reader] = score(walk.view, group, loudness)
        before = walk.hidden
        walk.advance(block)
        cosines = [
            torch.cosine_similarity(one.float(), other.float(), dim=-1).flatten()
            for one, other in zip(before, walk.hidden, strict=True)
        ]
        angles.append(float(torch.cat(cosines).clamp(-1, 1).arccos().mean()) / math.pi)
    return angles, scores


def score(view: View, group: Group, loudness: Tensor) -> Tensor:
    """How much each neuron of a group counts, [units].

    Args:
        view: the model.
        group: the neurons.
        loudness: root mean square of each, [units].
    """
    sites = {site.name: site for site in view.sites(group.block)}
    parts = [view.weight(sites[group.reader]).abs() * loudness]  # [outputs, units]
    for name, rows in group.writers.items():
        weight = view.weight(sites[name]).abs()
        parts += [weight[rows[:, one]].T for one in range(rows.shape[1])]
    relative = [part / part.sum(1, keepdim=True).clamp(min=1e-30) for part in parts]
    return loudness * torch.stack([part.mean(0) for part in relative]).sum(0)
