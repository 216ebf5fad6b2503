"""MoDeGPT: pairs of matrices made narrower together, each kind of pair by a way of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.later import torch
from backend.methods.base import ModelMethod, Needs, Stage, setting
from backend.methods.structure import _pairs

if TYPE_CHECKING:
    from backend.calibrate.walk import Walk
    from backend.methods.anatomy import Anatomy
    from backend.models.view import View

MODELS = ("llama", "mistral", "qwen2")
HALVINGS = 60


@dataclass(frozen=True)
class Widths:
    """What stays of a block: neurons, rotary pairs of queries and keys, and channels of values."""

    neurons: int
    pairs: int
    values: int


@dataclass(frozen=True)
class Modegpt(ModelMethod):
    """Make what lies between two matrices narrower, fitted to what the pair says together.

    Neurons between up and down are chosen by ridge leverage scores of their correlations, and the
    down matrix takes in what the others said (Nystrom). Queries and keys keep the rotary pairs
    whose two sides are loudest in product (CR). Values and outputs are the best product of low
    rank for what heads write (SVD), found in closed form. Blocks that hardly turn the stream lose
    most, by a softmax over how much each turns it. No gradient is taken.
    """

    stage = Stage.RESHAPE
    needs = Needs.HESSIAN
    paper = "arXiv 2408.09632"
    claim = "25 to 30 % removed at 90 to 95 % of the zero-shot score; 46 % more throughput."
    limits = (
        f"Models shaped like Llama without norms of queries: {', '.join(MODELS)}. Heads keep their "
        "width in attention and cache, channels that went being zeros there; keys and values that "
        "heads share are fitted to all of these."
    )
    models = MODELS
    yields = ("dense",)

    bits: float = setting(
        12.0,
        "Bits per original number of the model, masks of channels counted.",
        low=1.0,
        high=16.0,
    )
    temperature: float = setting(
        1.0, "Of the softmax over blocks; high gives all the same share.", low=0.01, high=100.0
    )

    def least(self, anatomy: Anatomy) -> int:
        """One neuron, one rotary pair and one channel of values in every block."""
        if self.bits >= 16:
            return 0  # nothing is cut
        return _count(anatomy, [Widths(1, 1, 1)] * len(anatomy.blocks))

    def rewrite(self, walk: Walk) -> dict[str, Any]:
        """Narrow the model of a walk, block after block, on what flows into each by then.

        Raises:
            ModelError: the model is of another shape.
            OutOfReachError: the narrowest model takes more than the budget.
        """
        from backend.models import units

        view, anatomy = walk.view, walk.view.anatomy()
        self.check(anatomy)
        plans = self.plan(anatomy, _influences(walk))
        walk.restart()
        groups = {one.block: one for one in units.find(view)[0] if one.neurons}
        for block, widths in enumerate(plans):
            seen = walk.gather(block, Needs.HESSIAN)
            sites = {site.role: site for site in view.sites(block)}
            _pairs.narrow_network(view, groups[block], sites, seen, widths.neurons)
            _pairs.narrow_keys(view, sites, seen, widths.pairs)
            _pairs.narrow_values(view, sites, seen, widths.values)
            walk.advance(block)
        walk.restart()
        return {"widths": [[one.neurons, one.pairs, one.values] for one in plans]}

    @classmethod
    def rebuild(cls, view: View, record: dict[str, Any]) -> None:
        """Give a skeleton the same widths; which channels stay is read with the tensors."""
        from backend.models import units

        groups = {one.block: one for one in units.find(view)[0] if one.neurons}
        for block, (neurons, pairs, values) in enumerate(record["widths"]):
            sites = {site.role: site for site in view.sites(block)}
            stay = torch.arange(groups[block].units) < neurons
            units.cut(view, groups[block], stay, None, biased=False)
            _pairs.place_empty(view, sites, 2 * pairs, values)

    def plan(self, anatomy: Anatomy, influences: list[float]) -> list[Widths]:
        """What stays of each block, all within the budget.

        Args:
            anatomy: of the dense model.
            influences: how much each block turns the stream.
        """
        budget = int(self.bits / 16 * anatomy.numbers)
        full = _full(anatomy)
        if self.bits >= 16:
            return [full] * len(influences)
        lowest = min(influences)
        weights = [math.exp((lowest - one) / self.temperature) for one in influences]
        shares = [len(weights) * one / sum(weights) for one in weights]

        def at(sparsity: float) -> list[Widths]:
            kept = [max(0.0, 1 - sparsity * share) for share in shares]
            return [Widths(*(max(1, int(one * rest)) for one in _sizes(full))) for rest in kept]

        low, high = 0.0, 1 / min(shares)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = _count(anatomy, at(middle)) <= budget
            low, high = (low, middle) if fits else (middle, high)
        return at(high)


def _sizes(widths: Widths) -> tuple[int, int, int]:
    return widths.neurons, widths.pairs, widths.values


def _full(anatomy: Anatomy) -> Widths:
    width = _pairs.heads_of(anatomy)[2]
    return Widths(anatomy.blocks[0]["mlp.down_proj.weight"][1], width // 2, width)


def _count(anatomy: Anatomy, plans: list[Widths]) -> int:
    """Numbers of 16 bits that the model holds where its blocks are as wide as planned."""
    heads, shared, width = _pairs.heads_of(anatomy)
    full, total = _full(anatomy), anatomy.numbers
    for block, plan in zip(anatomy.blocks, plans, strict=True):
        channels = block["self_attn.q_proj.weight"][1]
        biased = "self_attn.q_proj.bias" in block
        total -= (full.neurons - plan.neurons) * sum(
            shape[0] == full.neurons and (shape[1] if len(shape) == 2 else 1)
            for name, shape in block.items()
            if name.startswith(("mlp.gate_proj", "mlp.up_proj"))
        )
        total -= (full.neurons - plan.neurons) * block["mlp.down_proj.weight"][0]
        total -= 2 * (full.pairs - plan.pairs) * (heads + shared) * (channels + biased)
        lost = full.values - plan.values
        total -= lost * (shared * (channels + biased) + heads * channels)
        total += math.ceil((2 * heads + 2 * shared) * width / 16) + 4  # a bit a channel
    return total


def _influences(walk: Walk) -> list[float]:
    """How much each block turns the stream: one less the mean cosine of before and after."""
    found = []
    for block in range(len(walk.view.blocks)):
        before = walk.hidden
        walk.advance(block)
        cosines = [
            torch.cosine_similarity(one.float(), other.float(), dim=-1).flatten()
            for one, other in zip(before, walk.hidden, strict=True)
        ]
        found.append(1 - float(torch.cat(cosines).mean()))
    return found
