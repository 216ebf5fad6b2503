"""A model seen as blocks of linear layers with roles; changes weights, never computes loss.

Works for every decoder of transformers whose blocks stand in one list and hold linears:
roles come from the names that the families use, and a linear of unknown name is just `linear`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from backend.errors import ModelError
from backend.formats import Format, HeldEmbedding, HeldLinear
from backend.methods.anatomy import Anatomy, role
from backend.models.experts import Experts, unstack

HALVES = {
    "attention": {"query", "key", "value", "query-key-value", "attention-output"},
    "network": {"gate", "up", "gate-up", "down"},
}
ROUTERS = ("gate", "router")


@dataclass(frozen=True)
class Site:
    """A linear layer of a block: where it is and what it is for."""

    name: str
    role: str
    block: int


@dataclass(frozen=True)
class Half:
    """What a block adds to the stream in one go: its attention, or its network."""

    block: int
    kind: str
    modules: tuple[str, ...]


class View:
    """Blocks, linears, embedding, head and final norm of a causal language model."""

    def __init__(self, model: nn.Module) -> None:
        """Look at a model and unstack its experts.

        Raises:
            ModelError: no list of blocks with linear layers is found.
        """
        self.model = model
        self.has_experts = unstack(model) > 0 or any(
            isinstance(one, Experts) for one in model.modules()
        )
        self.blocks_name, blocks = _find_blocks(model)
        self.blocks: nn.ModuleList = blocks
        self.alike = False  # whether a block is called alike for every sequence; `check` tells

    @property
    def embedding(self) -> nn.Module:
        """What turns tokens into hidden states."""
        return self.model.get_input_embeddings()

    @property
    def head(self) -> nn.Module | None:
        """What turns hidden states into logits, if it is a module of its own."""
        return self.model.get_output_embeddings()

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are."""
        return next(self.model.parameters()).device

    @property
    def numbers(self) -> int:
        """Numbers that the model holds, tied ones once."""
        return sum(part.numel() for part in self.model.parameters())

    def anatomy(self) -> Anatomy:
        """Names and shapes of what the model holds, tied ones once, and its configuration."""
        shapes = {name: tuple(part.shape) for name, part in self.model.named_parameters()}
        return Anatomy(shapes, self.model.config.to_dict())

    def name_of(self, module: nn.Module) -> str:
        """Where in the model a module stands."""
        return next(name for name, one in self.model.named_modules() if one is module)

    def sites(self, block: int) -> list[Site]:
        """The linears of a block in the order in which they were made; routers are left out."""
        prefix = f"{self.blocks_name}.{block}"
        return [
            Site(f"{prefix}.{name}", _role(f"{prefix}.{name}"), block)
            for name in _linears(self.blocks[block], "", set())
            if not _is_router(name)
        ]

    def all_sites(self) -> Iterator[Site]:
        """Every linear of every block."""
        for block in range(len(self.blocks)):
            yield from self.sites(block)

    def halves(self) -> list[Half]:
        """Attention and network of every block, each as the modules that leave it empty."""
        found = []
        for block in range(len(self.blocks)):
            prefix = f"{self.blocks_name}.{block}."
            children: dict[str, set[str]] = {}
            for site in self.sites(block):
                child = site.name.removeprefix(prefix).partition(".")[0]
                children.setdefault(child, set()).add(site.role)
            for kind, roles in HALVES.items():
                own = tuple(prefix + child for child, has in children.items() if has & roles)
                if own:
                    found.append(Half(block, kind, own))
        return found

    def module(self, site: Site) -> nn.Module:
        """The layer at a site."""
        return self.model.get_submodule(site.name)

    def weight(self, site: Site) -> Tensor:
        """Its weight [outputs, inputs] in float32, whatever it is held in."""
        module = self.module(site)
        if isinstance(module, HeldLinear):
            return module.held.dense()
        weight = module.weight.detach().to(torch.float32)
        return weight.T.contiguous() if isinstance(module, Conv1D) else weight

    def shape(self, site: Site) -> tuple[int, int]:
        """Outputs and inputs of the layer at a site."""
        module = self.module(site)
        if isinstance(module, HeldLinear):
            return module.held.shape
        first, second = module.weight.shape
        return (second, first) if isinstance(module, Conv1D) else (first, second)

    def held(self, site: Site) -> Format | None:
        """The format of a layer that has been treated."""
        module = self.module(site)
        return module.held if isinstance(module, HeldLinear) else None

    def hold(self, site: Site, held: Format) -> None:
        """Put a held weight in the place of a layer, which keeps its bias."""
        self.replace(site.name, HeldLinear(held, self.module(site).bias))

    def hold_embedding(self, held: Format) -> None:
        """Put a held table in the place of the embedding, and of the head where that is tied."""
        embedding, head = self.embedding, self.head
        weight = embedding.weight
        scale = float(getattr(embedding, "scalar_embed_scale", 1.0))
        self.replace(self.name_of(embedding), HeldEmbedding(held, weight.dtype, scale))
        if head is not None and head.weight is weight:
            self.hold_head(held)

    def hold_head(self, held: Format) -> None:
        """Put a held matrix in the place of the head, which keeps its bias."""
        self.replace(self.name_of(self.head), HeldLinear(held, self.head.bias))

    def replace(self, name: str, module: nn.Module) -> None:
        """Put a module in the place of another."""
        parent, _, child = name.rpartition(".")
        self.model.get_submodule(parent)._modules[child] = module

    def final_norm(self) -> nn.Module | None:
        """The norm between the last block and the head, if there is one."""
        parent = self.model.get_submodule(self.blocks_name.rpartition(".")[0])
        for name in ("norm", "final_layernorm", "final_layer_norm", "ln_f"):
            if isinstance(norm := getattr(parent, name, None), nn.Module):
                return norm
        return None

    def enter(self, tokens: Tensor) -> tuple[Tensor, list[Callable[[Tensor], Tensor]]]:
        """What flows into the first block, and each block as a function of hidden states.

        Args:
            tokens: [batch, length]; later calls of a block take hidden states of that shape.

        Returns:
            Hidden states [batch, length, hidden] and one function for each block, through which
            gradients flow.
        """
        if self.alike and len(tokens) > 1:
            return self.embed(tokens), self.enter(tokens[:1])[1]
        calls: list[tuple[tuple, dict[str, Any]]] = []

        def note(_: nn.Module, arguments: tuple, keywords: dict[str, Any]) -> None:
            calls.append((arguments, keywords))

        hooks = [block.register_forward_pre_hook(note, with_kwargs=True) for block in self.blocks]
        try:
            with torch.no_grad():
                self.model(input_ids=tokens, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        if len(calls) != len(self.blocks):
            raise ModelError(
                f"The {len(self.blocks)} blocks of {type(self.model).__name__} ran {len(calls)} "
                "times in one pass; only models that run each block once can be treated."
            )
        return _hidden(*calls[0]), [
            _as_function(self.blocks, index, *call) for index, call in enumerate(calls)
        ]

    def embed(self, tokens: Tensor) -> Tensor:
        """What flows into the first block, [batch, length, hidden], without running any."""

        def stop(_: nn.Module, arguments: tuple, keywords: dict[str, Any]) -> None:
            raise _Reached(_hidden(arguments, keywords))

        hook = self.blocks[0].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.no_grad():
                self.model(input_ids=tokens, use_cache=False)
        except _Reached as reached:
            return reached.hidden
        finally:
            hook.remove()
        raise ModelError(f"{type(self.model).__name__} never runs its first block.")

    @torch.no_grad()
    def check(self, tokens: Tensor) -> None:
        """Make sure that running block by block gives what the model gives.

        Also finds out whether a block is called alike for every sequence, so that one of them
        tells how (`enter`).

        Args:
            tokens: [batch, length], at best a few sequences.

        Raises:
            ModelError: it does not, so that no method may be trusted with this model.
        """
        outputs: list[Tensor] = []
        hook = self.blocks[-1].register_forward_hook(
            lambda _module, _arguments, output: outputs.append(_first(output))
        )
        try:
            self.model(input_ids=tokens, use_cache=False)
        finally:
            hook.remove()
        for self.alike in (True, False):
            try:
                hidden, blocks = self.enter(tokens)
                for block in blocks:
                    hidden = block(hidden)
            except RuntimeError:  # what one sequence is called with does not fit several
                if not self.alike:
                    raise
                continue
            if torch.allclose(hidden, outputs[0], rtol=1e-2, atol=1e-2):
                return
        raise ModelError(
            f"{type(self.model).__name__} does more between its blocks than pass hidden "
            "states on, so that it cannot be compressed block by block."
        )


class _Reached(Exception):  # noqa: N818 - not an error: how a forward pass is left early
    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def _find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    best, best_size, best_name = None, 0, ""
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or not len(module):
            continue
        linears = any(
            isinstance(part, nn.Linear | Conv1D | HeldLinear) for part in module[0].modules()
        )
        size = sum(parameter.numel() for parameter in module.parameters())
        inside = best is not None and name.startswith(f"{best_name}.")
        if linears and not inside and size > best_size:
            best, best_size, best_name = module, size, name
    if best is None:
        raise ModelError(
            f"{type(model).__name__} has no list of blocks with linear layers, which every "
            "method needs; decoders such as Llama, Qwen, Mistral, Gemma, Phi or GPT-2 have one."
        )
    return best_name, best


def _linears(module: nn.Module, prefix: str, seen: set[nn.Module]) -> Iterator[str]:
    """Names of the linears inside, each once; what one holds is of many parts, and has none."""
    for name, child in module.named_children():
        if child in seen:
            continue
        seen.add(child)
        if isinstance(child, nn.Linear | Conv1D | HeldLinear):
            yield prefix + name
        else:
            yield from _linears(child, f"{prefix}{name}.", seen)


def _role(name: str) -> str:
    parent, _, child = name.removesuffix(".kept").rpartition(".")  # inside a placed one
    return role(child, parent)


def _is_router(name: str) -> bool:
    return name.rpartition(".")[2] in ROUTERS


def _hidden(arguments: tuple, keywords: dict[str, Any]) -> Tensor:
    return arguments[0] if arguments else keywords["hidden_states"]


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _as_function(
    blocks: nn.ModuleList, index: int, arguments: tuple, keywords: dict[str, Any]
) -> Callable[[Tensor], Tensor]:
    rest = arguments[1:]
    keywords = {name: value for name, value in keywords.items() if name != "hidden_states"}

    def run(hidden: Tensor) -> Tensor:
        return _first(blocks[index](hidden, *rest, **keywords))

    return run
