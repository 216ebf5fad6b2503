"""Every matrix of a model at every level, made once and kept on disk: what allocators choose from.

The levels stand at fixed bits, whatever the budget, so that one table serves every budget of a
method on a model. Blocks are written one by one, so that a killed run goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from backend import formats, shelf
from backend.errors import OutOfReachError
from backend.search.base import LADDER, Progress, Table

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format
    from backend.methods.base import LayerMethod
    from backend.models.view import Site, View

Statistics = Callable[[int], Mapping[str, "InputStatistics"]]


class LevelTable:
    """Formats of each site from the fewest bits to the most, read back when asked for."""

    def __init__(self, view: View, folder: Path) -> None:
        self._folder = folder
        self.sites: list[Site] = []
        self._headers: list[list[dict[str, Any]]] = []
        self._device = view.device
        rows: list[dict[str, Any]] = []
        for block in range(len(view.blocks)):
            written = json.loads(self._path(block).read_text())
            for site in view.sites(block):
                self.sites.append(site)
                self._headers.append(written[site.name]["headers"])
                rows.append(written[site.name])
        self.table = Table(
            names=tuple(site.name for site in self.sites),
            blocks=tuple(site.block for site in self.sites),
            numbers=tuple(row["numbers"] for row in rows),
            costs=tuple(tuple(row["costs"]) for row in rows),
            errors=tuple(tuple(row["errors"]) for row in rows),
        )

    @classmethod
    def build(
        cls,
        view: View,
        statistics: Statistics,
        method: LayerMethod,
        progress: Progress,
        folder: Path,
    ) -> LevelTable:
        """Treat every site at every level, on the statistics of each block, unless kept already."""
        shelf.make_room(folder)
        blocks = len(view.blocks)
        for block in range(blocks):
            progress("levels", block, blocks)
            if not (folder / f"{block}.json").is_file():
                _write_block(view, block, statistics(block), method, folder)
        return cls(view, folder)

    def held(self, index: int, level: int) -> Format:
        """The format of a site at a level."""
        site = self.sites[index]
        found = formats.from_header(self._headers[index][level])
        prefix = f"{site.name}/{level}/"
        with safe_open(self._folder / f"{site.block}.safetensors", "pt") as file:
            own = {
                name.removeprefix(prefix): file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 - a file of tensors is no mapping
                if name.startswith(prefix)
            }
        found.load_state_dict(own, assign=True)
        return found.to(self._device)

    @property
    def losses_file(self) -> Path:
        """Where what each level costs alone is kept, once measured."""
        return self._folder / "losses.json"

    def _path(self, block: int) -> Path:
        return self._folder / f"{block}.json"


def _write_block(
    view: View,
    block: int,
    statistics: Mapping[str, InputStatistics],
    method: LayerMethod,
    folder: Path,
) -> None:
    """Write the formats of a block; the description last, so that it marks a whole block."""
    from safetensors.torch import save_file  # it loads torch, which reading the catalogue must not

    written, tensors = {}, {}
    for site in view.sites(block):
        weight = view.weight(site)
        row = _rising(_levels(method), weight, statistics[site.name])
        for level, held in enumerate(row):
            for name, tensor in held.state_dict().items():
                tensors[f"{site.name}/{level}/{name}"] = tensor.contiguous()
        written[site.name] = {
            "numbers": weight.numel(),
            "headers": [held.header() for held in row],
            "costs": [held.nbytes for held in row],
            "errors": [_error(weight, held.dense(), statistics[site.name]) for held in row],
        }
    save_file(tensors, folder / f"{block}.safetensors")
    partial = folder / f"{block}.{os.getpid()}.part"
    partial.write_text(json.dumps(written))
    partial.replace(folder / f"{block}.json")


def _levels(method: LayerMethod) -> list[LayerMethod]:
    found: list[LayerMethod] = []
    for bits in LADDER:
        with contextlib.suppress(OutOfReachError):
            turned = method.at(bits)
            if turned not in found:
                found.append(turned)
    return found


def _rising(levels: list[LayerMethod], weight: Tensor, statistics: InputStatistics) -> list[Format]:
    """A weight at each level at which its shape can be held, each with more bytes than before.

    Raises:
        OutOfReachError: at no level.
    """
    row: list[Format] = []
    for method in levels:
        with contextlib.suppress(OutOfReachError):
            held = method.fit(weight, statistics)
            if not row or held.nbytes > row[-1].nbytes:
                row.append(held)
    if not row:
        levels[-1].fit(weight, statistics)  # says why it cannot
    return row


def _error(weight: Tensor, dense: Tensor, statistics: InputStatistics) -> float:
    """What changes in the outputs, as a share of their energy: tr(D H D^T) / tr(W H W^T)."""
    change = dense - weight
    hessian = statistics.hessian
    energy = float(((weight @ hessian) * weight).sum())
    return float(((change @ hessian) * change).sum()) / max(energy, 1e-30)
