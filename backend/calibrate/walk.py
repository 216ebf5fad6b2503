"""One walk through a model, block by block, that gathers what a recipe's methods need.

Holds the hidden states of the calibration windows and one block's statistics at a time.
Sequential: a block's inputs come from the compressed blocks before it. Parallel: from the
dense ones, so that statistics depend on the model alone and can be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from backend.calibrate.statistics import InputStatistics
from backend.methods.base import Needs

if TYPE_CHECKING:
    from backend.models.view import Site, View

BATCH_TOKENS = 4096


class Walk:
    """Hidden states on their way through the blocks of a model."""

    def __init__(self, view: View, windows: Tensor) -> None:
        """Start before the first block.

        Args:
            view: the model.
            windows: calibration tokens [windows, length], all of the same length.
        """
        self.view, self.windows = view, windows
        self.restart()

    def restart(self) -> None:
        """Go back before the first block; the model runs once states are asked for."""
        self._hidden: list[Tensor] = []

    @property
    def hidden(self) -> list[Tensor]:
        """States before the next block, [batch, length, hidden] each."""
        if not self._hidden:
            batches = self.windows.split(_batch_size(*self.windows.shape))
            first, self._blocks = self.view.enter(batches[0])
            self._hidden = [first, *map(self.view.embed, batches[1:])]
        return self._hidden

    @torch.no_grad()
    def gather(self, block: int, needs: Needs) -> dict[str, InputStatistics]:
        """Run a block on the hidden states before it; what its linears saw, by site name."""
        gathered: dict[str, InputStatistics] = {}
        if needs is Needs.NOTHING:
            return {site.name: self._nothing(site, needs) for site in self.view.sites(block)}
        for hidden in self.hidden:
            self._observe(block, hidden, gathered, needs)
        for site in self.view.sites(block):  # an expert that no token reached
            gathered.setdefault(site.name, self._nothing(site, needs))
        return gathered

    def _nothing(self, site: Site, needs: Needs) -> InputStatistics:
        weight = self.view.weight(site)
        return InputStatistics(weight.shape[1], needs, weight.device)

    def advance(self, block: int) -> None:
        """Pass the hidden states through a block, as it is now."""
        self._hidden = [self._blocks[block](hidden) for hidden in self.hidden]

    def _observe(
        self, block: int, hidden: Tensor, gathered: dict[str, InputStatistics], needs: Needs
    ) -> None:
        seen: dict[int, tuple[Tensor, InputStatistics]] = {}  # tensors kept, so ids stay unique

        def watch(site: Site, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
            def note(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                inputs = arguments[0]
                shared = seen.get(id(inputs))
                if shared is None:
                    columns = inputs.shape[-1]
                    mine = gathered.setdefault(
                        site.name, InputStatistics(columns, needs, inputs.device)
                    )
                    mine.add(inputs)
                    seen[id(inputs)] = inputs, mine
                else:
                    gathered[site.name] = shared[1]

            return module.register_forward_pre_hook(note)

        hooks = [watch(site, self.view.module(site)) for site in self.view.sites(block)]
        try:
            self._blocks[block](hidden)
        finally:
            for hook in hooks:
                hook.remove()


def _batch_size(windows: int, length: int) -> int:
    size = max(1, min(windows, BATCH_TOKENS // length))
    while windows % size:
        size -= 1
    return size
