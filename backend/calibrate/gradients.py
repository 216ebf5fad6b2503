"""The diagonal of the Fisher information of every linear: squared gradients, text by text.

Backward passes over the calibration windows, through the whole model as it is. Only signals
carry gradients; a layer's own is the product of what flows back into it and what it read.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from backend.calibrate import EACH

if TYPE_CHECKING:
    from backend.models.view import Site, View

Fisher = dict[str, Tensor]
TOGETHER = 8  # windows in one pass


def by_block(view: View, windows: Tensor, folder: Path | None = None) -> Callable[[int], Fisher]:
    """A function from a block to the diagonals of its sites, by name.

    Args:
        view: the model, none of its matrices treated yet.
        windows: calibration tokens [windows, length].
        folder: where they are kept; taken from there if all are, written there if not.
    """
    blocks = range(len(view.blocks))
    paths = [] if folder is None else [folder / f"{block}.fisher.safetensors" for block in blocks]
    if paths and all(path.is_file() for path in paths):
        return lambda block: {
            name: one.to(view.device) for name, one in load_file(paths[block]).items()
        }
    found = diagonal_fisher(view, windows)
    parts = [{site.name: found[site.name] for site in view.sites(block)} for block in blocks]
    for path, part in zip(paths, parts, strict=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        save_file(part, partial)
        partial.replace(path)
    return parts.__getitem__


def diagonal_fisher(view: View, windows: Tensor) -> Fisher:
    """Mean square of the loss's gradient over the windows, [rows, columns] by site name.

    The loss of a window is the sum of the negative log likelihoods of its tokens.
    """
    found = {site.name: torch.zeros_like(view.weight(site)) for site in view.all_sites()}

    def take(name: str, gradients: Tensor) -> None:
        found[name].add_(gradients.square_().sum(0))

    _walk_back(view, windows, take)
    return {name: total / len(windows) for name, total in found.items()}


def row_salience(view: View, windows: Tensor, changes: Mapping[str, Tensor]) -> Fisher:
    """How much the loss moves where a row changes, by Taylor's series, [rows] by site name.

    With g the gradient of the mean loss of a window and d the change of a row, |g d + (g d)^2 / 2|,
    added up over the windows: the Hessian is taken to be g g^T (MixLLM, arXiv 2412.14590).

    Args:
        view: the model, none of its matrices treated yet.
        windows: calibration tokens [windows, length].
        changes: of every weight, [rows, columns] by site name.
    """
    found = {
        name: torch.zeros(len(change), device=change.device) for name, change in changes.items()
    }

    def take(name: str, gradients: Tensor) -> None:
        moved = (gradients * changes[name]).sum(-1) / (windows.shape[1] - 1)
        found[name].add_((moved + moved.square() / 2).abs().sum(0))

    _walk_back(view, windows, take)
    return found


def of_each(view: View, windows: Tensor, block: int) -> Fisher:
    """Gradients of the losses of windows, [windows, rows, columns] in bfloat16 by site name.

    Of the model as it is by now, and of one block's linears. A linear that not every window
    reaches by itself, as an expert's, is left out.
    """
    parts: dict[str, list[Tensor]] = {}

    def take(name: str, gradients: Tensor) -> None:
        parts.setdefault(name, []).append(gradients.to(torch.bfloat16))

    _walk_back(view, windows[:EACH], take, view.sites(block))
    found = {name: torch.cat(parts.pop(name)) for name in list(parts)}  # never all there twice
    count = min(len(windows), EACH)
    return {name: each for name, each in found.items() if len(each) == count}


def _walk_back(
    view: View,
    windows: Tensor,
    take: Callable[[str, Tensor], None],
    sites: Iterable[Site] | None = None,
) -> None:
    """Tell `take` sites' gradients of the losses of some windows, [some, rows, columns]."""
    hooks = [
        view.module(site).register_forward_hook(
            functools.partial(_listen, functools.partial(take, site.name))
        )
        for site in (view.all_sites() if sites is None else sites)
    ]
    hooks.append(view.embedding.register_forward_hook(_carry))
    try:
        for batch in windows.split(1 if view.has_experts else TOGETHER):
            with torch.enable_grad(), in_float32(view.model):
                logits = view.model(input_ids=batch, use_cache=False).logits
                tokens = batch[:, 1:].flatten()
                scores = logits[:, :-1].flatten(0, 1).to(torch.float32)
                functional.cross_entropy(scores, tokens, reduction="sum").backward()
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Parameters in float32 meanwhile: backward products in bfloat16 take 20 times as long."""
    types = {parameter: parameter.dtype for parameter in model.parameters()}
    try:
        for parameter in types:
            parameter.data = parameter.data.to(torch.float32)
        yield
    finally:
        for parameter, dtype in types.items():
            parameter.data = parameter.data.to(dtype)


def _carry(_: nn.Module, _arguments: tuple, output: Tensor) -> None:
    output.requires_grad_()


def _listen(
    tell: Callable[[Tensor], None], _: nn.Module, arguments: tuple[Tensor, ...], output: Tensor
) -> None:
    read = arguments[0].detach()
    read = read.view(-1, *read.shape[-2:])  # an expert's tokens come without their window

    def take(gradient: Tensor) -> None:
        back = gradient.view(-1, *gradient.shape[-2:]).to(torch.float32)
        tell(torch.bmm(back.mT, read.to(torch.float32)))

    if output.requires_grad:
        output.register_hook(take)
