"""Narrowing what lies between two matrices of a block: neurons, queries with keys, values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.later import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.methods.anatomy import Anatomy
    from backend.models.units import Group
    from backend.models.view import Site, View

    Sites = Mapping[str, Site]
    Seen = Mapping[str, InputStatistics]

TINY = 1e-6  # of the mean eigenvalue, below which a direction counts as absent


def narrow_network(view: View, group: Group, sites: Sites, seen: Seen, neurons: int) -> None:
    """Keep some neurons of a block and let what reads them say what the others said."""
    from backend.models import units

    if neurons >= group.units:
        return
    down = sites["down"]
    moment = seen[down.name].hessian.to(torch.float64)
    stay = torch.zeros(group.units, dtype=torch.bool)
    stay[leverage(moment, neurons).topk(neurons).indices.cpu()] = True
    weight = nystrom(view.weight(down).to(torch.float64), moment, stay)
    units.cut(view, group, stay, None, biased=False)
    view.module(down).weight.data.copy_(weight)


def leverage(moment: Tensor, count: int) -> Tensor:
    """Ridge leverage scores of channels, [channels]: how little the others can stand in for one.

    The ridge is what `count` directions leave of the energy, over `count`, with which the scores
    add up to no more than twice `count` (Musco and Musco, arXiv 1605.07583).
    """
    values, vectors = torch.linalg.eigh(moment)
    values = values.clamp(min=0)
    ridge = values[: len(values) - count].sum() / count
    ridge = torch.clamp(ridge, min=1e-9 * float(values.mean()) + 1e-30)
    return vectors.square() @ (values / (values + ridge))


def nystrom(weight: Tensor, moment: Tensor, stay: Tensor) -> Tensor:
    """What reads the channels that stay, [outputs, staying], nearest to what read all of them.

    Args:
        weight: that reads all, [outputs, channels].
        moment: mean of h h^T over the channels, [channels, channels].
        stay: true for the channels that stay.
    """
    stay = stay.to(moment.device)
    within = moment[stay][:, stay].clone()
    within.diagonal().add_(TINY * within.diagonal().mean() + 1e-30)
    return torch.linalg.solve(within, moment[stay] @ weight.T).T


def narrow_keys(view: View, sites: Sites, seen: Seen, pairs: int) -> None:
    """Keep the rotary pairs of each head's queries and keys that are loudest in product."""
    query, key = sites["query"], sites["key"]
    heads, shared, width = shape_of(view)
    half = width // 2
    if pairs >= half:
        return
    loud = [energy(view, site, seen).view(-1, 2, half).sum(1) for site in (query, key)]
    of_queries = loud[0].view(shared, heads // shared, half).sum(1)  # of all that share a key
    order = (of_queries * loud[1]).topk(pairs, dim=1).indices
    stay = torch.zeros(shared, half, dtype=torch.bool, device=order.device)
    stay.scatter_(1, order, value=True)
    both = torch.cat([stay, stay], 1)  # channel i is turned with channel i + half
    _keep(view, key, both.flatten())
    _keep(view, query, both.repeat_interleave(heads // shared, 0).flatten())


def narrow_values(view: View, sites: Sites, seen: Seen, rank: int) -> None:
    """Replace values and what reads them by their best product of a lower rank.

    With G the sum of O_h^T O_h over the heads that share values and S the second moment of these,
    the best of rank k goes through the k leading eigenvectors of G^1/2 S G^1/2.
    """
    value, out = sites["value"], sites["attention-output"]
    heads, shared, width = shape_of(view)
    if rank >= width:
        return
    weight, bias = view.weight(value).to(torch.float64), view.module(value).bias
    bias = torch.zeros_like(weight[:, 0]) if bias is None else bias.detach().to(torch.float64)
    reader = view.weight(out).to(torch.float64)
    spread = moment(weight, bias, seen[value.name])
    rows, offsets, columns = [], [], []
    for head in range(shared):
        own = slice(head * width, (head + 1) * width)
        per = heads // shared
        read = reader[:, head * per * width : (head + 1) * per * width]
        read = read.reshape(-1, per, width).transpose(0, 1)  # [heads, outputs, width]
        root, inverse = roots(torch.einsum("hoi,hoj->ij", read, read))
        axes = torch.linalg.eigh(root @ spread[own, own] @ root).eigenvectors[:, -rank:]
        down = axes.T @ root
        rows.append(down @ weight[own])
        offsets.append(down @ bias[own])
        columns.append((read @ (inverse @ axes)).transpose(0, 1).flatten(1))
    stay = (torch.arange(width) < rank).repeat(shared)
    whole = view.module(value).bias is not None
    _place(
        view, value, torch.cat(rows), torch.cat(offsets) if whole else None, stay, side="outputs"
    )
    after = view.module(out).bias
    stay = (torch.arange(width) < rank).repeat(heads)
    _place(view, out, torch.cat(columns, 1), after, stay, side="inputs")


def place_empty(view: View, sites: Sites, channels: int, values: int) -> None:
    """Give a skeleton's attention the linears that narrowing leaves, tensors uninitialised."""
    from backend.models.placed import PlacedLinear
    from backend.models.sliced import empty_linear

    heads, shared, width = shape_of(view)
    wanted = (
        ("query", heads, channels, "outputs"),
        ("key", shared, channels, "outputs"),
        ("value", shared, values, "outputs"),
        ("attention-output", heads, values, "inputs"),
    )
    for role, count, kept, side in wanted:
        if kept >= width:
            continue
        module = view.module(sites[role])
        rows, columns = module.weight.shape
        if side == "outputs":
            rows = count * kept
        else:
            columns = count * kept
        linear = empty_linear(rows, columns, module.weight, module.bias is not None)
        view.replace(sites[role].name, PlacedLinear(linear, count * width, side))


def heads_of(anatomy: Anatomy) -> tuple[int, int, int]:
    """Heads of queries, heads of keys and values, and the width of one."""
    heads = anatomy.text["num_attention_heads"]
    width = anatomy.blocks[0]["self_attn.o_proj.weight"][1] // heads
    return heads, anatomy.text.get("num_key_value_heads") or heads, width


def shape_of(view: View) -> tuple[int, int, int]:
    """Heads of queries, heads of keys and values, and the width of one."""
    config = view.model.config.get_text_config()
    attention = view.blocks[0].self_attn
    heads = config.num_attention_heads
    return heads, config.num_key_value_heads or heads, attention.head_dim


def energy(view: View, site: Site, seen: Seen) -> Tensor:
    """Mean square of each output of a linear, bias and all, [outputs]."""
    weight, bias = view.weight(site), view.module(site).bias
    bias = torch.zeros_like(weight[:, 0]) if bias is None else bias.detach().to(weight.dtype)
    statistics = seen[site.name]
    square = ((weight @ statistics.hessian) * weight).sum(1)
    return (square + 2 * bias * (weight @ statistics.means) + bias.square()).clamp(min=0)


def moment(weight: Tensor, bias: Tensor, statistics: InputStatistics) -> Tensor:
    """Second moment of the outputs of a linear, [outputs, outputs]."""
    hessian = statistics.hessian.to(weight.dtype)
    drift = (weight @ statistics.means.to(weight.dtype)).outer(bias)
    return weight @ hessian @ weight.T + drift + drift.T + bias.outer(bias)


def roots(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric root of a matrix and its inverse, absent directions left out of both."""
    values, vectors = torch.linalg.eigh(gram)
    floor = TINY * float(values.clamp(min=0).mean()) + 1e-30
    there = values > floor
    root = torch.where(there, values.clamp(min=0), 0.0).sqrt()
    inverse = torch.where(there, values.clamp(min=floor).rsqrt(), 0.0)
    return (vectors * root) @ vectors.T, (vectors * inverse) @ vectors.T


def _keep(view: View, site: Site, stay: Tensor) -> None:
    module = view.module(site)
    bias = None if module.bias is None else module.bias.detach()[stay]
    _place(view, site, view.weight(site)[stay], bias, stay, side="outputs")


def _place(
    view: View, site: Site, weight: Tensor, bias: Tensor | None, stay: Tensor, *, side: str
) -> None:
    from backend.models.placed import PlacedLinear

    dtype = view.module(site).weight.dtype
    bias = None if bias is None else bias.detach().to(dtype)
    placed = PlacedLinear.of(weight.to(dtype), bias, stay.cpu(), side)
    view.replace(site.name, placed)
