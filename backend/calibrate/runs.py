"""Learns how matrices are held from what runs of blocks make of text, one run after the other.

What goes into a run is what the blocks before it, as they are held by then, made of the text;
what should come out is what the dense model has there. Runs overlap: a block is settled once the
last run that has it is over, and learns in all of them until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backend.calibrate import TOGETHER
from backend.calibrate.gradients import in_float32

if TYPE_CHECKING:
    from backend.calibrate.modes import Statistics
    from backend.formats import Format
    from backend.methods.base import RunMethod, Soft
    from backend.models.view import Site, View

Progress = Callable[[str, int, int], None]


def learn(
    view: View,
    windows: Tensor,
    method: RunMethod,
    statistics: Callable[[int], Statistics],
    *,
    kept: Path | None,
    progress: Progress,
) -> dict[str, Format]:
    """What holds every linear, by name; the model itself is left as it was.

    Args:
        view: the model, its weights dense.
        windows: calibration tokens [windows, length].
        method: says what is learned, over how many blocks at a time.
        statistics: of a block's linears in the dense model.
        kept: folder in which what finished runs learned lies, to resume from; None keeps nothing.
        progress: told (stage, done, total).
    """
    dense = {site.name: view.module(site) for site in view.all_sites()}
    runs = spans(len(view.blocks), *method.runs)
    found: dict[str, Format] = {}
    try:
        with in_float32(view.model):
            learning = _Learning(view, windows, method, statistics)
            for number, (start, end) in enumerate(runs):
                progress("learn", number, len(runs))
                settled = end if number + 1 == len(runs) else runs[number + 1][0]
                path = None if kept is None else kept / f"{start}.run.safetensors"
                found |= learning.step(start, end, settled, path)
            progress("learn", len(runs), len(runs))
    finally:
        for name, module in dense.items():
            vars(module).pop("forward", None)
            view.replace(name, module)
    return found


def spans(blocks: int, size: int, shared: int) -> list[tuple[int, int]]:
    """First block of each run and the one after its last; the last run ends with the model."""
    stride = size - shared
    starts = range(0, max(1, blocks - shared), stride)
    return [(start, min(start + size, blocks)) for start in starts]


class _Learning:
    """The dense text and the text as it is held, on their way through the blocks."""

    def __init__(
        self,
        view: View,
        windows: Tensor,
        method: RunMethod,
        statistics: Callable[[int], Statistics],
    ) -> None:
        size = next(size for size in range(TOGETHER, 0, -1) if len(windows) % size == 0)
        batches = windows.split(size)
        first, self._blocks = view.enter(batches[0])
        self._wanted = self._inputs = [first, *map(view.embed, batches[1:])]
        self._view, self._method, self._statistics = view, method, statistics
        self._softs: dict[int, list[tuple[Site, Soft]]] = {}

    def step(self, start: int, end: int, settled: int, path: Path | None) -> dict[str, Format]:
        """Learn one run; what holds the linears of its blocks before `settled`, by name."""
        for block in range(max(self._softs, default=-1) + 1, end):
            self._wanted = self._pass(self._wanted, block)
            self._soften(block)
        softs = [soft for block in range(start, end) for _, soft in self._softs[block]]
        if path is None or not path.is_file():
            self._method.learn(softs, self._run(start, end), self._inputs, self._wanted)
            if path is not None:
                _keep(softs, path)
        else:
            _restore(softs, path)
        found = {}
        for block in range(start, settled):
            for site, soft in self._softs[block]:
                found[site.name] = held = soft.held()
                vars(self._view.module(site)).pop("forward")
                self._view.hold(site, held)
            self._softs[block].clear()  # no later run has this block
            self._inputs = self._pass(self._inputs, block)
        return found

    def _soften(self, block: int) -> None:
        """Have the linears of a dense block answer as what is learned of them."""
        statistics, softs = self._statistics(block), []
        for site in self._view.sites(block):
            soft = self._method.soft(self._view.weight(site), statistics[site.name])
            module = self._view.module(site)
            module.forward = _answering(module, soft)
            softs.append((site, soft))
        self._softs[block] = softs

    def _run(self, start: int, end: int) -> Callable[[Tensor], Tensor]:
        def run(states: Tensor) -> Tensor:
            for block in range(start, end):
                states = self._blocks[block](states)
            return states

        return run

    @torch.no_grad()
    def _pass(self, states: list[Tensor], block: int) -> list[Tensor]:
        return [self._blocks[block](part) for part in states]


def _answering(module: nn.Module, soft: Soft) -> Callable[[Tensor], Tensor]:
    def forward(inputs: Tensor) -> Tensor:
        found = soft.multiply(inputs)
        return found if module.bias is None else found + module.bias

    return forward


def _numbers(softs: list[Soft]) -> Iterator[tuple[str, Tensor]]:
    for place, soft in enumerate(softs):
        for index, part in enumerate(soft.learned()):
            yield f"{place}.{index}", part


def _keep(softs: list[Soft], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: part.detach().contiguous() for name, part in _numbers(softs)}, partial)
    partial.rename(path)


def _restore(softs: list[Soft], path: Path) -> None:
    kept = load_file(path)
    for name, part in _numbers(softs):
        part.data.copy_(kept[name])
