"""FLAP: remove the heads and neurons whose signals hardly change, and add what they always say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.errors import ModelError
from backend.later import torch
from backend.methods.base import ModelMethod, Needs, Stage, setting

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.walk import Walk
    from backend.methods.anatomy import Anatomy
    from backend.models.units import Group
    from backend.models.view import View


@dataclass(frozen=True)
class Flap(ModelMethod):
    """Remove whole heads and neurons whose signals hardly fluctuate, and make up for their means.

    A channel that is nearly constant can be left out if its mean is added as a bias, so its
    score is how much it fluctuates over calibration text, times the squared norm of the weights
    that read it. Scores are standardised within each module and compared over the whole model,
    which gives every layer the width that it deserves. Heads go with the keys and values that
    they share; what reads a removed channel gets its mean as a bias.
    """

    stage = Stage.RESHAPE
    needs = Needs.NORMS
    paper = "arXiv 2312.11983"
    claim = "Beats LLM-Pruner at 20 to 50 % without retraining."
    limits = "Modules in which no heads or neurons are found stay as they are and are named."
    yields = ("dense",)

    bits: float = setting(
        13.0, "Bits per original number of the model, biases counted.", low=1.0, high=16.0
    )

    def least(self, anatomy: Anatomy) -> int:
        """One head and one neuron of each module, and the biases.

        Raises:
            ModelError: no heads or neurons are found at all.
        """
        if not anatomy.units:
            raise ModelError("flap finds no heads or neurons in this model; take svd or lord.")
        if self.bits >= 16:
            return 0  # nothing is cut
        gone = sum((one.count - 1) * one.cost - one.bias for one in anatomy.units)
        return anatomy.numbers - gone

    def rewrite(self, walk: Walk) -> dict[str, Any]:
        """Cut the model of a walk.

        Raises:
            ModelError: no heads or neurons are found at all.
            OutOfReachError: one unit a module takes more than the budget.
        """
        from backend.models import units

        view = walk.view
        self.check(view.anatomy())
        groups, unknown = units.find(view)
        scores, means = _observe(walk, groups)
        kept = self.chosen(view, groups, scores)
        for group, stay in zip(groups, kept, strict=True):
            units.cut(view, group, stay, means[group.reader])
        walk.restart()
        shapes = {group.reader: stay.tolist() for group, stay in zip(groups, kept, strict=True)}
        left = [f"{name}: no heads or neurons found; left whole." for name in unknown]
        return {"kept": shapes, "remarks": left}

    @classmethod
    def rebuild(cls, view: View, record: dict[str, Any]) -> None:
        """Give a skeleton the same shapes."""
        from backend.models import units

        groups, _ = units.find(view)
        for group in groups:
            units.cut(view, group, torch.tensor(record["kept"][group.reader]), None)

    def chosen(self, view: View, groups: list[Group], scores: list[Tensor]) -> list[Tensor]:
        """True for the units of each group that stay, one of each at least."""
        whole = view.numbers
        added = sum(group.bias for group in groups)
        spare = int(self.bits / 16 * whole) - whole
        stay = [torch.ones_like(score, dtype=torch.bool) for score in scores]
        if spare >= 0:
            return stay
        spare -= added
        flat = [(float(one), g, u) for g, part in enumerate(scores) for u, one in enumerate(part)]
        last = [int(part.argmax()) for part in scores]
        for _, group, unit in sorted(flat):
            if spare >= 0:
                break
            if unit != last[group]:
                stay[group][unit] = False
                spare += groups[group].cost
        assert spare >= 0, "checked beforehand: one unit a group fits"
        return stay


def _observe(walk: Walk, groups: list[Group]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Standardised scores of each group's units, and the mean of each channel read, by reader."""
    scores, means = {}, {}
    by_block: dict[int, list[Group]] = {}
    for group in groups:
        by_block.setdefault(group.block, []).append(group)
    for block in range(len(walk.view.blocks)):
        seen = walk.gather(block, Needs.NORMS)
        sites = {site.name: site for site in walk.view.sites(block)}
        for group in by_block.get(block, []):
            one = seen[group.reader]
            strength = walk.view.weight(sites[group.reader]).square().sum(0)
            channels = one.variances * strength
            units = channels.view(group.units, -1).mean(1)
            spread = units.std(unbiased=False).clamp(min=1e-30)
            scores[group.reader] = (units - units.mean()) / spread
            means[group.reader] = one.means
        walk.advance(block)
    return [scores[group.reader] for group in groups], means
