"""Where the statistics of a block come from: the compressed blocks before it, or the dense ones.

Sequential statistics know what earlier blocks have become, and cost a walk each time. Parallel
ones depend on the dense model and the text alone, so one walk serves every method and setting;
they are kept on disk by content and read block by block.
"""

from __future__ import annotations

import abc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from backend import shelf
from backend.calibrate.gradients import Fisher
from backend.calibrate.statistics import InputStatistics
from backend.calibrate.walk import Treat, Walk
from backend.methods.base import Needs

if TYPE_CHECKING:
    from backend.models.view import Site

Statistics = dict[str, InputStatistics]
Source: TypeAlias = "Sequential | Parallel | Bent | Sloped | Ranked"


class Sequential:
    """Statistics of each layer on what the treated layers before it give."""

    def __init__(self, walk: Walk, needs: Needs) -> None:
        self._walk, self._needs = walk, needs

    def treat(self, block: int, sites: list[Site], treat: Treat) -> None:  # noqa: ARG002
        """Have each linear of a block treated by what it sees."""
        self._walk.through(block, self._needs, treat)

    def skip(self, block: int) -> None:
        """Go on with a block that is treated already."""
        if self._needs is not Needs.NOTHING and block + 1 < len(self._walk.view.blocks):
            self._walk.advance(block)


class Parallel:
    """Statistics of each block on what the dense blocks before it give.

    Args:
        start: a walk before the first block of the dense model; not called if all is kept.
        needs: what is gathered.
        blocks: of the model.
        kept: where they lie; None keeps them in memory.
    """

    def __init__(
        self, start: Callable[[], Walk], needs: Needs, blocks: int, kept: Kept | None = None
    ) -> None:
        self._needs, self._kept = needs, kept
        self._memory: list[Statistics] = []
        if kept is not None and kept.complete(blocks, needs):
            return
        walk = start()
        for block in range(blocks):
            found = walk.gather(block, needs)
            if kept is None:
                self._memory.append(found)
            else:
                kept.save(block, found, needs)
            walk.advance(block)

    def enter(self, block: int) -> Statistics:
        """What the linears of a block see, by site name."""
        return self._memory[block] if self._kept is None else self._kept.load(block, self._needs)

    def treat(self, block: int, sites: list[Site], treat: Treat) -> None:
        """Have each linear of a block treated by what it sees."""
        found = self.enter(block)
        for site in sites:
            treat(site, found[site.name])

    def skip(self, block: int) -> None:
        """Nothing: what a block has become does not matter to the next."""


class _Dressed(abc.ABC):
    """Another source's statistics, each layer's with something more that is known of it."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @abc.abstractmethod
    def _dress(self, block: int) -> Callable[[str, InputStatistics], InputStatistics]:
        """What makes them of the other's and a site's name, once a block is entered."""

    def enter(self, block: int) -> Statistics:
        """What the linears of a block see, by site name."""
        dress = self._dress(block)
        return {name: dress(name, one) for name, one in self._source.enter(block).items()}

    def treat(self, block: int, sites: list[Site], treat: Treat) -> None:
        """Have each linear of a block treated by what it sees."""
        dress = self._dress(block)
        self._source.treat(block, sites, lambda site, one: treat(site, dress(site.name, one)))

    def skip(self, block: int) -> None:
        """Go on as the other source does."""
        self._source.skip(block)


class Bent(_Dressed):
    """Each layer with the diagonal of its Fisher information.

    Gradients are those of the model before any matrix was treated, whatever the other source.
    """

    def __init__(self, source: Source, fisher: Callable[[int], Fisher]) -> None:
        super().__init__(source)
        self._fisher = fisher

    def _dress(self, block: int) -> Callable[[str, InputStatistics], InputStatistics]:
        fisher = self._fisher(block)
        return lambda name, one: one.bent(fisher[name])


class Sloped(_Dressed):
    """Each layer with the gradient of each text.

    Gradients are those of the model as it is when a block is entered.
    """

    def __init__(self, source: Source, each: Callable[[int], Fisher]) -> None:
        super().__init__(source)
        self._each = each

    def _dress(self, block: int) -> Callable[[str, InputStatistics], InputStatistics]:
        each = self._each(block)
        return lambda name, one: one.sloped(each.get(name))


class Ranked(_Dressed):
    """Each layer with which of its rows are held finer."""

    def __init__(self, source: Source, fine_rows: dict[str, Tensor]) -> None:
        super().__init__(source)
        self._fine_rows = fine_rows

    def _dress(self, block: int) -> Callable[[str, InputStatistics], InputStatistics]:  # noqa: ARG002
        return lambda name, one: one.ranked(self._fine_rows[name])


class Kept:
    """Statistics of one model and text on disk, a file for each block; read onto a device."""

    def __init__(self, folder: Path, device: torch.device | None = None) -> None:
        self._folder, self._device = folder, device

    def complete(self, blocks: int, needs: Needs) -> bool:
        """Whether every block is there with what is needed."""
        for block in range(blocks):
            path = self._path(block)
            if not path.is_file():
                return False
            with safe_open(path, "pt") as file:
                if needs not in Needs(int(file.metadata()["needs"])):
                    return False
        return True

    def save(self, block: int, found: Statistics, needs: Needs) -> None:
        """Write a block's statistics; what layers share is written once."""
        shelf.make_room(self._folder)
        groups = {id(one): one for one in found.values()}
        tensors, counts = {}, {}
        for key, one in groups.items():
            counts[str(key)] = [one.columns, one.count]
            for name in ("sums", "squares", "products", "samples"):
                if (tensor := getattr(one, name)) is not None:
                    tensors[f"{key}.{name}"] = tensor
        sites = {name: str(id(one)) for name, one in found.items()}
        has = needs | Needs.NORMS if Needs.HESSIAN in needs else needs
        facts = {"needs": str(has.value), "sites": json.dumps(sites), "counts": json.dumps(counts)}
        partial = self._path(block).with_suffix(f".{os.getpid()}.part")
        save_file(tensors, partial, facts)
        partial.replace(self._path(block))

    def load(self, block: int, needs: Needs) -> Statistics:
        """Read a block's statistics back, shared as they were."""
        with safe_open(self._path(block), "pt") as file:
            facts = file.metadata()
            tensors = {
                name: file.get_tensor(name).to(self._device)
                for name in file.keys()  # noqa: SIM118 - a file of tensors is no mapping
            }
        groups = {}
        for key, (columns, count) in json.loads(facts["counts"]).items():
            one = InputStatistics(columns, needs, self._device)
            one.count = count
            one.sums = tensors.get(f"{key}.sums")
            one.squares = tensors.get(f"{key}.squares")
            one.products = tensors.get(f"{key}.products")
            one.samples = tensors.get(f"{key}.samples")
            groups[key] = one
        return {name: groups[key] for name, key in json.loads(facts["sites"]).items()}

    def _path(self, block: int) -> Path:
        return self._folder / f"{block}.safetensors"
