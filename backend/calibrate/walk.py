"""One walk through a model, block by block, that gathers what a recipe's methods need.

Holds the hidden states of the calibration windows and one block's statistics at a time.
Sequential: a layer's inputs come from the compressed layers before it. Parallel: from the
dense ones, so that statistics depend on the model alone and can be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from backend.calibrate import AT_ONCE, BATCH_TOKENS
from backend.calibrate.statistics import InputStatistics
from backend.methods.base import Needs

if TYPE_CHECKING:
    from backend.models.view import Site, View

Treat = Callable[["Site", InputStatistics], None]


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

    @torch.no_grad()
    def through(self, block: int, needs: Needs, treat: Treat) -> None:
        """Pass all states through a block once; each linear is treated when inputs reach it.

        So the next linear sees what this one has become, and no product is made twice. Where
        windows must pass apart, because a block wants to be called with something of their own
        or because they are too many, statistics of the whole block come first.
        """
        sites = self.view.sites(block)
        if needs is Needs.NOTHING:
            for site in sites:
                treat(site, self._nothing(site, needs))
            return
        widest = max(max(self.view.shape(site)) for site in sites)
        if not self.view.alike or self.windows.numel() * widest > AT_ONCE:
            size = _batch_size(*self.windows.shape)  # where a narrow block before had all at once
            self._hidden = [part for each in self.hidden for part in each.split(size)]
            found = self.gather(block, needs)
            for site in sites:
                treat(site, found[site.name])
            self.advance(block)
            return
        if len(self.hidden) > 1:  # asked for before anything waits, as it may run the model
            self._hidden = [torch.cat(self.hidden)]
        waiting = [_Waiting(self, site, needs, treat) for site in sites]
        last: _Seen = []
        for one in waiting:
            one.begin(last)
        try:
            self._hidden = [self._blocks[block](self._hidden[0])]
        finally:
            for one in waiting:
                one.end()
        for one in waiting:
            if not one.treated:  # an expert that no token reached
                treat(one.site, self._nothing(one.site, needs))

    def _nothing(self, site: Site, needs: Needs) -> InputStatistics:
        return InputStatistics(self.view.shape(site)[1], needs, self.view.device)

    @torch.no_grad()
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


_Seen = list[tuple[Tensor, InputStatistics]]  # the last inputs and what is known of them, if any


class _Waiting:
    """A linear that is treated by what reaches it first, and then answers as what it is."""

    def __init__(self, walk: Walk, site: Site, needs: Needs, treat: Treat) -> None:
        self.view, self.site, self.needs, self.treat = walk.view, site, needs, treat
        self.module = walk.view.module(site)
        self.treated = False

    def begin(self, last: _Seen) -> None:
        """Wait for inputs; those of the linear before are known if they are the same tensor."""

        def forward(inputs: Tensor) -> Tensor:
            self.end()
            if not last or last[0][0] is not inputs:
                found = InputStatistics(inputs.shape[-1], self.needs, inputs.device)
                found.add(inputs)
                last[:] = [(inputs, found)]
            self.treated = True
            self.treat(self.site, last[0][1])
            return self.view.module(self.site)(inputs)

        self.module.forward = forward

    def end(self) -> None:
        """Wait no longer."""
        vars(self.module).pop("forward", None)


def _batch_size(windows: int, length: int) -> int:
    size = max(1, min(windows, BATCH_TOKENS // length))
    while windows % size:
        size -= 1
    return size
