"""SliceGPT: turn the residual stream to its principal axes and cut off the last ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backend.later import torch
from backend.methods.anatomy import BLOCK, Anatomy, Shape
from backend.methods.base import ModelMethod, Needs, Stage, setting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backend.calibrate.walk import Walk
    from backend.models.view import View

MODELS = ("llama", "mistral", "qwen2", "qwen3")
WRITING = ("o_proj.weight", "o_proj.bias", "down_proj.weight", "down_proj.bias")
STEPS = 64  # widths on the way down: a step of 64 channels at 4,096


@dataclass(frozen=True)
class Slicegpt(ModelMethod):
    """Make the whole model narrower along the axes in which its signals vary least.

    A norm without weights does not care how the stream is turned, so each stream between two
    layers is turned to the principal axes of its own signals, and the last axes are deleted
    with the rows and columns that read and write them. Shortcuts get a small matrix that
    turns one basis into the next; it is counted. Embedding and head lose as many columns; a
    head tied to the embedding stays tied, one more small matrix doing the turn.
    """

    stage = Stage.RESHAPE
    needs = Needs.HESSIAN
    paper = "arXiv 2401.15024"
    claim = "25 % of the parameters removed at 99 % of the zero-shot score; 64 to 66 % compute."
    limits = f"Models shaped like Llama: {', '.join(MODELS)}. Budgets count the whole model."
    models = MODELS
    yields = ("dense",)

    bits: float = setting(
        12.0, "Bits per original number of the model, turned bases counted.", low=1.0, high=16.0
    )

    def rewrite(self, walk: Walk) -> dict[str, Any]:
        """Turn and cut the model of a walk.

        Raises:
            ModelError: the model is of another shape.
            OutOfReachError: not even the narrowest model fits the budget.
        """
        from backend.models import sliced

        view = walk.view
        channels = self.channels(view.anatomy())
        bases = _bases(walk)
        parts = [_Parts(view, block) for block in range(len(view.blocks))]
        end = _fold(view.final_norm())
        embedding, head = view.embedding.weight.float(), view.head.weight.float()
        tied = view.head.weight is view.embedding.weight
        sliced.narrow(view, channels)
        kept = [basis[:, :channels] for basis in bases]
        for index, part in enumerate(parts):
            part.fill(view.blocks[index], kept[2 * index : 2 * index + 3])
        _put(view.embedding, embedding @ kept[0])
        if tied:  # the head reads the embedding's basis
            _put(view.final_norm().shortcut, (kept[-1].T @ end @ kept[0]).T)
        else:
            _put(view.head, head @ end @ kept[-1])
            _put(view.final_norm().shortcut, torch.eye(channels, device=end.device))
        walk.restart()
        return {"channels": channels}

    @classmethod
    def rebuild(cls, view: View, record: dict[str, Any]) -> None:
        """Give a skeleton the narrow shape."""
        from backend.models import sliced

        sliced.narrow(view, int(record["channels"]))

    def least(self, anatomy: Anatomy) -> int:
        """Numbers of the narrowest model."""
        return _narrowed(anatomy, min(_widths(anatomy))).numbers

    def left(self, anatomy: Anatomy) -> Anatomy:
        """The narrow model, to the number."""
        return _narrowed(anatomy, self.channels(anatomy))

    def channels(self, anatomy: Anatomy) -> int:
        """The most channels that the budget holds, in steps that hardware likes.

        Raises:
            ModelError: the model is of another shape.
            OutOfReachError: not even the narrowest model fits the budget.
        """
        self.check(anatomy)
        budget = self.bits / 16 * anatomy.numbers
        widths = _widths(anatomy)
        return next(one for one in widths if _narrowed(anatomy, one).numbers <= budget)


def _widths(anatomy: Anatomy) -> range:
    """Channels that may stay, the most first."""
    width = anatomy.text["hidden_size"]
    return range(width, 0, -max(1, width // STEPS))


def _narrowed(anatomy: Anatomy, channels: int) -> Anatomy:
    """What the model holds with `channels` channels of its width; norms have no weights left."""
    shapes: dict[str, Shape] = {}
    for name, shape in anatomy.shapes.items():
        block = BLOCK.fullmatch(name)
        if block is None:
            if len(shape) == 2:
                shapes[name] = shape[0], channels
        elif "layernorm" in name:
            shapes[_shortcut(name)] = channels, channels
        elif name.endswith(WRITING):
            shapes[name] = channels, *shape[1:]
        else:
            shapes[name] = (shape[0], channels) if len(shape) == 2 else shape
    shapes["model.norm.shortcut.weight"] = channels, channels
    return replace(anatomy, shapes=shapes)


def _shortcut(norm: str) -> str:
    """The matrix of the shortcut around what a norm of a block stands before."""
    kind = "attention" if norm.endswith("input_layernorm.weight") else "mlp"
    return f"{norm.rpartition('.')[0].rpartition('.')[0]}.{kind}_shortcut.weight"


def _bases(walk: Walk) -> list[Tensor]:
    """Principal axes of every stream: before each attention, each feed-forward, and the end."""
    view, bases = walk.view, []
    for index, block in enumerate(view.blocks):
        bases.append(_principal(walk.hidden))
        inner: list[Tensor] = []
        hook = block.post_attention_layernorm.register_forward_pre_hook(
            lambda _module, arguments, seen=inner: seen.append(arguments[0])
        )
        try:
            walk.advance(index)
        finally:
            hook.remove()
        bases.append(_principal(inner))
    bases.append(_principal(walk.hidden))
    return bases


def _principal(batches: list[Tensor]) -> Tensor:
    """Axes [channels, channels] of normed signals, the strongest first."""
    width = batches[0].shape[-1]
    moment = torch.zeros(width, width, dtype=torch.float64, device=batches[0].device)
    for batch in batches:
        signal = batch.reshape(-1, width).to(torch.float32)
        signal = signal * torch.rsqrt(signal.square().mean(-1, keepdim=True) + 1e-6)
        moment += (signal.T @ signal).to(torch.float64)
    return torch.linalg.eigh(moment).eigenvectors.flip(1).to(torch.float32)


class _Parts:
    """The weights of a block in float32, norms folded into what reads them."""

    def __init__(self, view: View, index: int) -> None:
        block = view.blocks[index]
        first, second = _fold(block.input_layernorm), _fold(block.post_attention_layernorm)
        self.weights, self.biases = {}, {}
        for site in view.sites(index):
            name = site.name.removeprefix(f"{view.blocks_name}.{index}.")
            weight, bias = view.weight(site), view.module(site).bias
            if not name.endswith(("o_proj", "down_proj")):
                weight = weight @ (first if name.startswith("self_attn") else second)
            self.weights[name], self.biases[name] = weight, bias

    def fill(self, block: nn.Module, bases: list[Tensor]) -> None:
        """Write the weights between bases before attention, before feed-forward and after."""
        before, between, after = bases
        for name, weight in self.weights.items():
            attention = name.startswith("self_attn")
            target, bias = block.get_submodule(name), self.biases[name]
            if name.endswith(("o_proj", "down_proj")):
                out = between if attention else after
                _put(target, out.T @ weight, None if bias is None else out.T @ bias.float())
            else:
                _put(target, weight @ (before if attention else between), bias)
        _put(block.attention_shortcut, between.T @ before)
        _put(block.mlp_shortcut, after.T @ between)


def _fold(norm: nn.Module) -> Tensor:
    return torch.diag(norm.weight.detach().float())


def _put(module: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
