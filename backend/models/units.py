"""Heads and neurons of a model's blocks: which channels of which linears belong together.

A group is what one linear reads: the heads that an attention's output reads, the neurons that a
feed-forward's does. Cutting a unit takes its columns there and the rows that write them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from backend.models.view import Site, View

INTERLEAVED = ("gpt_neox",)


@dataclass(frozen=True)
class Group:
    """Units that one linear reads.

    Attributes:
        block: in which it lies.
        reader: name of the linear that reads the units.
        units: how many there are.
        width: columns of the reader to a unit.
        writers: name of each linear that writes them, and for each unit the rows, [units, rows].
        cost: numbers that go with a unit.
        bias: numbers that a bias of the reader adds, 0 where it has one.
        neurons: whether they are neurons, not heads.
    """

    block: int
    reader: str
    units: int
    width: int
    writers: dict[str, Tensor]
    cost: int
    bias: int
    neurons: bool


def find(view: View) -> tuple[list[Group], list[str]]:
    """Groups of every block, and the names of the linears whose units are not known."""
    groups, unknown = [], []
    for block in range(len(view.blocks)):
        by_parent: dict[str, list[Site]] = {}
        for site in view.sites(block):
            by_parent.setdefault(site.name.rpartition(".")[0], []).append(site)
        for sites in by_parent.values():
            roles = {site.role: site for site in sites}
            for reader, make in (("attention-output", _heads), ("down", _neurons)):
                if reader not in roles:
                    continue
                group = make(view, roles)
                if group is None:
                    unknown.append(roles[reader].name)
                else:
                    groups.append(group)
    return groups, unknown


def cut(
    view: View, group: Group, stay: Tensor, means: Tensor | None, *, biased: bool = True
) -> None:
    """Take units out of their linears.

    Args:
        view: the model.
        group: what lies together.
        stay: true for the units that stay, [units].
        means: mean of each channel that the reader reads, made good by its bias; None for a
            skeleton, whose values do not matter.
        biased: whether the reader gets a bias where it has none.
    """
    if bool(stay.all()):
        return
    stay = stay.cpu()  # as the places of rows are, which are found of skeletons too
    reader = view.model.get_submodule(group.reader)
    columns = stay.repeat_interleave(group.width)
    weight, bias = _oriented(reader), reader.bias
    gone = None if means is None else weight[:, ~columns].float() @ means[~columns].float()
    total = None if bias is None else bias.detach()
    if total is None and biased:
        total = torch.zeros(weight.shape[0], device=weight.device)
    if gone is not None and total is not None:
        total = total.float() + gone
    _replace(view, group.reader, weight[:, columns], total)
    for name, rows in group.writers.items():
        module = view.model.get_submodule(name)
        chosen = rows[stay].flatten().sort().values
        part = None if module.bias is None else module.bias.detach()[chosen]
        _replace(view, name, _oriented(module)[chosen], part)
    _tell(view, group, int(stay.sum()))


def _neurons(view: View, roles: dict[str, Site]) -> Group | None:
    down = roles["down"]
    inner = view.weight(down).shape[1]
    writers = {}
    for role in ("gate", "up"):
        if role in roles:
            writers[roles[role].name] = torch.arange(inner).unsqueeze(1)
    if "gate-up" in roles:
        both = torch.stack([torch.arange(inner), inner + torch.arange(inner)], 1)
        writers[roles["gate-up"].name] = both
    fits = all(_rows(view, name) == rows.numel() for name, rows in writers.items())
    return _group(view, down, inner, 1, writers) if writers and fits else None


def _heads(view: View, roles: dict[str, Site]) -> Group | None:
    """Groups of heads that share keys and values, each with these."""
    config = view.model.config.get_text_config()
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    out = roles["attention-output"]
    total = view.weight(out).shape[1]
    size = total // heads
    per = heads // shared
    queries = torch.arange(total).view(shared, per * size)
    states = torch.arange(shared * size).view(shared, size)
    writers: dict[str, Tensor] = {}
    if "query-key-value" in roles:
        name = roles["query-key-value"].name
        if config.model_type in INTERLEAVED:  # query, key and value of a head side by side
            writers[name] = torch.arange(3 * total).view(heads, 3 * size)
        else:
            parts = [queries, total + states, total + shared * size + states]
            writers[name] = torch.cat(parts, 1)
    elif {"query", "key", "value"} <= roles.keys():
        writers[roles["query"].name] = queries
        writers[roles["key"].name] = states
        writers[roles["value"].name] = states
    fits = all(_rows(view, name) == rows.numel() for name, rows in writers.items())
    return _group(view, out, shared, per * size, writers) if writers and fits else None


def _group(view: View, reader: Site, units: int, width: int, writers: dict[str, Tensor]) -> Group:
    module = view.module(reader)
    outputs = view.weight(reader).shape[0]
    cost = outputs * width
    for name, rows in writers.items():
        writer = view.model.get_submodule(name)
        columns = _oriented(writer).shape[1] + (writer.bias is not None)
        cost += rows.shape[1] * columns
    bias = outputs if module.bias is None else 0
    return Group(
        reader.block, reader.name, units, width, writers, cost, bias, reader.role == "down"
    )


def _rows(view: View, name: str) -> int:
    return _oriented(view.model.get_submodule(name)).shape[0]


def _oriented(module: nn.Module) -> Tensor:
    """Weight [outputs, inputs] of a linear, GPT-2's too."""
    weight = module.weight.detach()
    return weight.T if isinstance(module, Conv1D) else weight


def _replace(view: View, name: str, weight: Tensor, bias: Tensor | None) -> None:
    dtype = view.model.get_submodule(name).weight.dtype
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    made.weight = nn.Parameter(weight.to(dtype).contiguous(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    view.replace(name, made)


def _tell(view: View, group: Group, units: int) -> None:
    """Bring up to date what the module around the linears keeps of its own width."""
    parent = view.model.get_submodule(group.reader.rpartition(".")[0])
    kept = units * group.width
    head = getattr(parent, "head_dim", None)
    if head is None:
        return
    if hasattr(parent, "split_size"):  # GPT-2
        parent.split_size = kept
    if hasattr(parent, "num_heads"):
        parent.num_heads = kept // head
    if hasattr(parent, "num_key_value_heads") and hasattr(parent, "qkv_proj"):  # Phi-3
        parent.config = copy.copy(parent.config)
        parent.config.num_attention_heads = kept // head
        parent.num_key_value_heads = units
