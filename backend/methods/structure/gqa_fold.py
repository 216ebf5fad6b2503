"""GQA-fold: heads of keys and values merged into fewer that more queries share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.later import torch
from backend.methods.base import ModelMethod, Needs, Stage, setting
from backend.methods.structure import _pairs

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.walk import Walk
    from backend.methods.anatomy import Anatomy
    from backend.models.view import Site, View

MODELS = ("llama", "mistral", "qwen2")


@dataclass(frozen=True)
class GqaFold(ModelMethod):
    """Merge neighbouring heads of keys and values, so that the cache holds fewer of them.

    Keys and values of several heads lie near a space as small as one head. Values go through the
    principal directions of what the queries' heads write of them, and what reads them takes the
    way back in. Keys are merged rotary pair by pair, each pair one complex number: that way the
    merge and the turning by position may change places, and the queries take the way back in.
    What the cache holds shrinks with the number of heads.
    """

    stage = Stage.RESHAPE
    needs = Needs.HESSIAN
    paper = "arXiv 2406.07056"
    claim = "Half, even three quarters of the key-value heads go at comparable accuracy."
    limits = (
        f"Models shaped like Llama without norms of keys: {', '.join(MODELS)}. Fine-tuning after "
        "the merge is left out. Keys are merged where the paper rebuilds them before each turn, "
        "which costs time at every step. Few weights go: most is saved in the cache."
    )
    models = MODELS
    yields = ("dense",)

    bits: float = setting(
        15.5, "Bits per original number of the model; fewer merge more heads.", low=1.0, high=16.0
    )

    def least(self, anatomy: Anatomy) -> int:
        """One head of keys and values in every block."""
        return 0 if self.bits >= 16 else _count(anatomy, 1)

    def heads(self, anatomy: Anatomy) -> int:
        """The most heads of keys and values, a divisor of those there are, within the budget.

        Raises:
            ModelError: the model is of another shape.
            OutOfReachError: one head takes more than the budget.
        """
        self.check(anatomy)
        _, shared, _ = _pairs.heads_of(anatomy)
        budget = self.bits / 16 * anatomy.numbers
        whole = [one for one in range(shared, 0, -1) if shared % one == 0]
        return next(one for one in whole if _count(anatomy, one) <= budget)

    def rewrite(self, walk: Walk) -> dict[str, Any]:
        """Merge the heads of a walk's model, block after block, on what flows in by then.

        Raises:
            ModelError: the model is of another shape.
            OutOfReachError: one head takes more than the budget.
        """
        view = walk.view
        stay = self.heads(view.anatomy())
        if stay == _pairs.shape_of(view)[1]:
            return {"heads": stay}
        for block in range(len(view.blocks)):
            seen = walk.gather(block, Needs.HESSIAN)
            sites = {site.role: site for site in view.sites(block)}
            _merge_keys(view, sites, seen, stay)
            _merge_values(view, sites, seen, stay)
            _share(view, block, stay)
            walk.advance(block)
        view.model.config.get_text_config().num_key_value_heads = stay
        walk.restart()
        return {"heads": stay}

    @classmethod
    def rebuild(cls, view: View, record: dict[str, Any]) -> None:
        """Give a skeleton as many heads."""
        from backend.models.sliced import empty_linear

        stay, (_, shared, width) = int(record["heads"]), _pairs.shape_of(view)
        if stay == shared:
            return
        for block in range(len(view.blocks)):
            for site in view.sites(block):
                if site.role in ("key", "value"):
                    old = view.module(site)
                    shape = stay * width, old.weight.shape[1]
                    linear = empty_linear(*shape, old.weight, old.bias is not None)
                    view.replace(site.name, linear)
            _share(view, block, stay)
        view.model.config.get_text_config().num_key_value_heads = stay


def _count(anatomy: Anatomy, stay: int) -> int:
    """Numbers that a model holds with so many heads of keys and values."""
    _, shared, width = _pairs.heads_of(anatomy)
    total = anatomy.numbers
    for block in anatomy.blocks:
        columns = block["self_attn.k_proj.weight"][1] + ("self_attn.k_proj.bias" in block)
        total -= 2 * (shared - stay) * width * columns
    return total


def _share(view: View, block: int, stay: int) -> None:
    """Let the queries of a block share so many heads."""
    attention = view.blocks[block].self_attn
    attention.num_key_value_groups = _pairs.shape_of(view)[0] // stay


def _merge_keys(view: View, sites: _pairs.Sites, seen: _pairs.Seen, stay: int) -> None:
    """Merge keys pair by pair, as complex numbers, and turn the queries to the merged ones."""
    query, key = sites["query"], sites["key"]
    heads, shared, width = _pairs.shape_of(view)
    half = width // 2
    weight, bias = _affine(view, key)
    moment = _pairs.moment(weight, bias, seen[key.name]).view(shared, 2, half, shared, 2, half)
    loud = _pairs.energy(view, query, seen).to(torch.float64)
    loud = loud.view(shared, heads // shared, 2, half).sum((1, 2))  # of all that share a key
    into = torch.zeros(shared, half, dtype=torch.complex128, device=weight.device)
    back = torch.zeros_like(into)
    for first in range(0, shared, shared // stay):
        group = slice(first, first + shared // stay)
        for pair in range(half):
            own = moment[group, :, pair, group, :, pair]  # [heads, side, heads, side]
            mixed = torch.complex(
                own[:, 0, :, 0] + own[:, 1, :, 1], own[:, 1, :, 0] - own[:, 0, :, 1]
            )
            root = loud[group, pair].clamp(min=1e-12 * float(loud.mean()) + 1e-30).sqrt()
            axis = torch.linalg.eigh(root[:, None] * mixed * root).eigenvectors[:, -1]
            into[group, pair], back[group, pair] = root * axis, axis / root
    merged = [
        _turned(part.view(shared, 2, half, -1), into).view(stay, -1, width, part.shape[-1]).sum(1)
        for part in (weight, bias[:, None])
    ]
    _put(view, key, merged[0].flatten(0, 1), merged[1].flatten())
    weight, bias = _affine(view, query)
    way = back.repeat_interleave(heads // shared, 0)
    turned = [
        _turned(part.view(heads, 2, half, -1), way).flatten(0, 1)
        for part in (weight, bias[:, None])
    ]
    _put(view, query, turned[0], turned[1].flatten())


def _turned(rows: Tensor, factors: Tensor) -> Tensor:
    """Rows [heads, 2, half, columns], as complex numbers, times conjugate factors [heads, half].

    Returns:
        [heads, 2 * half, columns].
    """
    real, imaginary = factors.real[..., None], factors.imag[..., None]
    first, second = rows[:, 0], rows[:, 1]
    found = real * first + imaginary * second, real * second - imaginary * first
    return torch.cat(found, 1)


def _merge_values(view: View, sites: _pairs.Sites, seen: _pairs.Seen, stay: int) -> None:
    """Merge values along what heads write of them; what reads them takes the way back in."""
    value, out = sites["value"], sites["attention-output"]
    heads, shared, width = _pairs.shape_of(view)
    weight, bias = _affine(view, value)
    moment = _pairs.moment(weight, bias, seen[value.name])
    reader = view.weight(out).to(torch.float64)
    read = reader.view(-1, shared, heads // shared, width)
    gram = torch.einsum("ogpi,ogpj->gij", read, read)
    rows, offsets, columns = [], [], []
    for first in range(0, shared, shared // stay):
        group = range(first, first + shared // stay)
        own = slice(first * width, (first + len(group)) * width)
        root, inverse = _pairs.roots(torch.block_diag(*(gram[one] for one in group)))
        axes = torch.linalg.eigh(root @ moment[own, own] @ root).eigenvectors[:, -width:]
        down, back = axes.T @ root, (inverse @ axes).view(len(group), width, width)
        rows.append(down @ weight[own])
        offsets.append(down @ bias[own])
        columns += [read[:, one] @ back[place] for place, one in enumerate(group)]
    _put(view, value, torch.cat(rows), torch.cat(offsets))
    _put(view, out, torch.stack(columns, 1).flatten(1), None)


def _affine(view: View, site: Site) -> tuple[Tensor, Tensor]:
    """Weight and bias, zero where there is none, in float64."""
    weight, bias = view.weight(site).to(torch.float64), view.module(site).bias
    zero = torch.zeros_like(weight[:, 0])
    return weight, zero if bias is None else bias.detach().to(torch.float64)


def _put(view: View, site: Site, weight: Tensor, bias: Tensor | None) -> None:
    """Put a weight, and a bias where there was one, in the place of a linear's own."""
    from backend.models.sliced import empty_linear

    old = view.module(site)
    linear = empty_linear(*weight.shape, old.weight, old.bias is not None)
    linear.weight.data.copy_(weight)
    if old.bias is not None:
        linear.bias.data.copy_(old.bias if bias is None else bias)
    view.replace(site.name, linear)
