"""Blocks of every layer of a model on disk, one by one, in the order in which they are loaded.

Made once for a model, a text and a method's settings; any budget then reads the first blocks of
the list and nothing else. The folder holds a file of tensors for each block of the model, and
`order.json`: what each block is, and when it is loaded.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from backend import formats
from backend.calibrate.modes import Source
from backend.formats import Format
from backend.methods.base import StackMethod
from backend.models.view import Site, View
from backend.recipes import digest

Progress = Callable[[str, int, int], None]
TOKENS = 512
MEASURED = (1, 2, 4, 8)
"""Heights of all stacks at which the next blocks are measured; between them the order stays."""


def load(
    view: View,
    source: Callable[[], Source],
    method: StackMethod,
    windows: Tensor,
    *,
    kept: Path | None,
    progress: Progress,
) -> dict[str, Format]:
    """What holds each site at the method's bits, by name; takes apart only what never was.

    Args:
        view: the model, its weights dense; unchanged.
        source: gives statistics of the dense blocks, where they are needed.
        method: how weights are taken apart, and the budget.
        windows: calibration tokens [windows, length].
        kept: folder for this model and text; None keeps nothing.
        progress: told of every step.
    """
    with contextlib.ExitStack() as stack:
        if kept is None:
            kept = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = kept / f"stacks-{_key(view, method)}"
        if not (folder / "order.json").is_file():
            _take_apart(view, source(), method, folder, progress)
            _write_order(view, windows, folder, progress)
        return _first(view, folder, method, progress)


def _key(view: View, method: StackMethod) -> str:
    settings = {name: one for name, one in method.settings().items() if name != method.level}
    shapes = [[site.name, *view.weight(site).shape] for site in view.all_sites()]
    return digest([method.key(), method.version, settings, shapes])


def _take_apart(
    view: View, source: Source, method: StackMethod, folder: Path, progress: Progress
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    blocks = len(view.blocks)
    for block in range(blocks):
        progress("take apart", block, blocks)
        statistics = source.enter(block)
        tensors, headers = {}, {}
        for site in view.sites(block):
            parts = method.stack(view.weight(site), statistics[site.name])
            headers[site.name] = [part.header() for part in parts]
            for place, part in enumerate(parts):
                for name, tensor in part.state_dict().items():
                    tensors[f"{site.name}/{place}/{name}"] = tensor.contiguous()
        partial = folder / f"{block}.part"
        save_file(tensors, partial, {"headers": json.dumps(headers)})
        partial.rename(folder / f"{block}.safetensors")


class _Blocks:
    """The blocks on disk, read one at a time."""

    def __init__(self, view: View, folder: Path) -> None:
        self._folder, self._device = folder, view.device
        self._sites = {site.name: site for site in view.all_sites()}
        self._headers: dict[str, list[dict[str, Any]]] = {}
        for block in range(len(view.blocks)):
            with self._open(block) as file:
                self._headers |= json.loads(file.metadata()["headers"])

    @property
    def height(self) -> int:
        """Blocks of the highest stack."""
        return max(map(len, self._headers.values()))

    def names(self) -> list[str]:
        """Every site."""
        return list(self._headers)

    def read(self, name: str, place: int) -> Format:
        """One block of a site, with nothing else read."""
        held = formats.from_header(self._headers[name][place])
        with self._open(self._sites[name].block) as file:
            state = {key: file.get_tensor(f"{name}/{place}/{key}") for key in held.state_dict()}
        held.load_state_dict(state, assign=True)
        return held.to(self._device)

    def _open(self, block: int) -> Any:
        return safe_open(self._folder / f"{block}.safetensors", "pt")


def _write_order(view: View, windows: Tensor, folder: Path, progress: Progress) -> None:
    """Measure what each next block does for the whole model, and sort by that for its bytes."""
    blocks = _Blocks(view, folder)
    order: list[list[Any]] = []
    ranked = blocks.names()
    with _trial(view, windows) as trial:
        for place in range(blocks.height):
            progress("sort blocks", place, blocks.height)
            layer = {name: blocks.read(name, place) for name in ranked}
            if place in MEASURED:
                before = trial.loss()
                gains = {}
                for name, part in layer.items():
                    trial.add(name, part.dense())
                    gains[name] = (before - trial.loss()) / part.nbytes
                    trial.add(name, -part.dense())
                ranked = sorted(ranked, key=gains.__getitem__, reverse=True)
            for name in ranked:
                order.append([name, place, layer[name].nbytes])
                trial.add(name, layer[name].dense())
    partial = folder / "order.part"
    partial.write_text(json.dumps(order))
    partial.rename(folder / "order.json")


def _first(view: View, folder: Path, method: StackMethod, progress: Progress) -> dict[str, Format]:
    """The first blocks of the list, as many as the budget holds."""
    bits = method.settings()[method.level]
    numbers = sum(view.weight(site).numel() for site in view.all_sites())
    spare = bits * numbers / 8 + 1e-6
    blocks = _Blocks(view, folder)
    found: dict[str, list[Format]] = {name: [] for name in blocks.names()}
    order = json.loads((folder / "order.json").read_text())
    for step, (name, place, size) in enumerate(order):
        if size > spare:
            break
        progress("load blocks", step, len(order))
        found[name].append(blocks.read(name, place))
        spare -= size
    return {
        name: formats.Sum.of(**{f"block{place}": part for place, part in enumerate(parts)})
        for name, parts in found.items()
    }


class _Trial:
    """KL divergence from the dense model as blocks are added to weights that began at zero."""

    def __init__(self, view: View, windows: Tensor) -> None:
        self._view = view
        self._tokens = windows[: max(1, TOKENS // windows.shape[1])]
        self._sites: dict[str, Site] = {site.name: site for site in view.all_sites()}
        self._sums: dict[str, Tensor] = {}
        self._dense = self._log_probabilities()

    def add(self, name: str, part: Tensor) -> None:
        """Add to a site's weight [rows, columns]."""
        total = self._sums.get(name)
        self._sums[name] = part if total is None else total + part
        weight = self._view.module(self._sites[name]).weight
        whole = self._sums[name]
        weight.data.copy_(whole if weight.shape == whole.shape else whole.T)

    def loss(self) -> float:
        """Mean nats a token."""
        found = self._log_probabilities()
        return float((self._dense.exp() * (self._dense - found)).sum(-1).mean())

    @torch.inference_mode()
    def _log_probabilities(self) -> Tensor:
        logits = self._view.model(input_ids=self._tokens, use_cache=False).logits
        return logits.to(torch.float32).log_softmax(-1)


@contextlib.contextmanager
def _trial(view: View, windows: Tensor) -> Iterator[_Trial]:
    """A trial on a model's own weights, which come back when it ends."""
    weights = [view.module(site).weight for site in view.all_sites()]
    originals = [weight.detach().clone() for weight in weights]
    try:
        yield _Trial(view, windows)
    finally:
        for weight, original in zip(weights, originals, strict=True):
            weight.data.copy_(original)
