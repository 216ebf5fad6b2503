"""Runs a recipe over a model, block by block, with progress, remarks and resume.

What comes out is a model whose layers are held in formats; `backend.models.artefact` writes it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend import formats
from backend.calibrate.modes import Kept, Parallel, Sequential
from backend.calibrate.statistics import InputStatistics
from backend.calibrate.walk import Walk
from backend.errors import OutOfReachError
from backend.formats import Format
from backend.methods.base import LayerMethod, ModelMethod, Needs
from backend.models.load import LoadedModel
from backend.models.view import Site, View
from backend.recipes import Recipe, digest
from backend.search.level_table import LevelTable, Statistics
from backend.search.trial import Trial

Progress = Callable[[str, int, int], None]


@dataclass
class Compressed:
    """A model treated by a recipe."""

    view: View
    structure: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def compress(
    loaded: LoadedModel,
    recipe: Recipe,
    windows: Tensor,
    progress: Progress = lambda *_: None,
    *,
    checkpoint: Path | None = None,
    parallel: bool = False,
    statistics: Path | None = None,
    levels: Path | None = None,
) -> Compressed:
    """Treat a model in place.

    Args:
        loaded: the dense model.
        recipe: what to do; stages of cache and decoding leave the weights alone.
        windows: calibration tokens [windows, length].
        progress: told (stage, done, total).
        checkpoint: folder in which finished blocks are kept, to resume from.
        parallel: gather statistics on the dense blocks, not on the compressed ones.
        statistics: folder in which parallel statistics of this model and text are kept.
        levels: folder in which tables of levels are kept, one for each method, model and text.

    Raises:
        ParetoscopeError: the model cannot be treated, or a budget lies out of reach.
    """
    view = View(loaded.model)
    result = Compressed(view)
    model_methods = [stage for stage in recipe.stages if isinstance(stage, ModelMethod)]
    if not model_methods and not recipe.layer_methods:
        return result
    view.check(windows[:1])
    walk: Walk | None = None
    for method in model_methods:
        progress(method.key(), 0, 1)
        walk = walk or Walk(view, windows)
        result.structure.append({"method": method.key(), **method.rewrite(walk)})
    needs = Needs.NOTHING
    for method in recipe.layer_methods:
        needs |= method.needs
    if not recipe.layer_methods:
        return result
    kept = None if model_methods else statistics

    def aside(needs: Needs) -> Parallel:
        progress("calibrate", 0, 1)
        where = None if kept is None else Kept(kept)
        return Parallel(lambda: walk or Walk(view, windows), needs, len(view.blocks), where)

    if recipe.division is not None:
        name = digest([str(kept), recipe.layer_methods[0].ladder])
        table = levels / name if kept and levels else None
        source = functools.cache(lambda: aside(needs | Needs.HESSIAN))
        _divide(
            view,
            lambda block: source().enter(block),
            windows,
            recipe,
            progress=progress,
            kept=table,
        )
        return result
    source = aside(needs) if parallel else Sequential(walk or Walk(view, windows), needs)
    work = [recipe.to_json(), parallel, _shapes(view), windows.tolist()]
    saved = None if checkpoint is None else _Checkpoint(checkpoint, digest(work))
    _treat_blocks(view, source, recipe.layer_methods, result, progress=progress, saved=saved)
    return result


def _treat_blocks(
    view: View,
    source: Sequential | Parallel,
    methods: tuple[LayerMethod, ...],
    result: Compressed,
    *,
    progress: Progress,
    saved: _Checkpoint | None,
) -> None:
    blocks = len(view.blocks)
    for block in range(blocks):
        progress("compress", block, blocks)
        remarks = None if saved is None else saved.restore(view, block)
        if remarks is None:
            remarks = []
            statistics = source.enter(block)
            for site in view.sites(block):
                remarks += _treat(view, site, methods, statistics[site.name])
            if saved is not None:
                saved.keep(view, block, remarks)
        result.remarks += remarks
        source.leave(block)
    if saved is not None:
        saved.drop()
    progress("compress", blocks, blocks)


def _treat(
    view: View,
    site: Site,
    methods: tuple[LayerMethod, ...],
    statistics: InputStatistics,
) -> list[str]:
    """Put a layer into its formats; what there is to say of it."""
    remarks = []
    held: Format = formats.Dense.pack(view.weight(site), dtype=torch.float32)
    if statistics.count == 0 and any(method.needs for method in methods):
        remarks.append(f"{site.name}: no calibration token reached it; treated without.")
    for method in methods:
        if remark := method.remark(*held.shape):
            remarks.append(f"{site.name}: {remark}")
        try:
            held = refit(method, held, statistics)
        except OutOfReachError as error:
            raise OutOfReachError(f"{site.name}: {error}") from error
    view.hold(site, held)
    return remarks


def refit(method: LayerMethod, held: Format, statistics: InputStatistics) -> Format:
    """Let a method treat what an earlier one left dense in a format.

    The right factor of a product sees the layer's inputs, the left one what the right makes of
    them. Sparse values are treated one by one: their places differ from row to row.
    """
    if isinstance(held, formats.Dense):
        return method.fit(held.dense(), statistics)
    if isinstance(held, formats.LowRank):
        right = held.right.dense()
        inner = statistics.through(right) if method.needs else statistics
        held.left = method.fit(held.left.dense(), inner)
        held.right = method.fit(right, statistics)
        return held
    if isinstance(held, formats.BitmaskSparse | formats.Sparse24):
        values = held.values.dense()
        columns = values.shape[1]
        held.values = method.fit(values, InputStatistics(columns, Needs.NOTHING))
        return held
    raise OutOfReachError(f"{method.key()} cannot treat what is held as {held.key}.")


def _divide(
    view: View,
    statistics: Statistics,
    windows: Tensor,
    recipe: Recipe,
    *,
    progress: Progress,
    kept: Path | None,
) -> None:
    """Put every layer at the level that the recipe's allocator chooses for it."""
    method = recipe.layer_methods[0]
    with contextlib.ExitStack() as stack:
        folder = kept or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        levels = LevelTable.build(view, statistics, method, progress, folder)
        budget = levels.table.budget(method.settings()[method.level])
        least = sum(row[0] for row in levels.table.costs)
        if least > budget:
            bits = 8 * least / sum(levels.table.numbers)
            raise OutOfReachError(
                f"{recipe.text()}: all layers at their lowest level take {bits:.2f} bits a weight; "
                "ask for more."
            )
        trial = stack.enter_context(Trial(view, levels, windows).restored())
        chosen = recipe.division.divide(trial, budget, progress)
        held = [levels.held(index, level) for index, level in enumerate(chosen)]
    for site, one in zip(levels.sites, held, strict=True):
        view.hold(site, one)


def _shapes(view: View) -> list[list[str | int]]:
    return [[name, *part.shape] for name, part in view.model.named_parameters()]


class _Checkpoint:
    """Finished blocks on disk, so that a killed run goes on where it stopped."""

    def __init__(self, folder: Path, key: str) -> None:
        """Take up what lies in a folder if it is of the same recipe, shapes and text."""
        self.folder = folder
        mark = folder / "work"
        if folder.is_dir() and (not mark.is_file() or mark.read_text() != key):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(key)

    def keep(self, view: View, block: int, remarks: list[str]) -> None:
        """Write the formats of a block; the header last, so that it marks a whole block."""
        headers, tensors = {}, {}
        for site in view.sites(block):
            held = view.held(site)
            if held is None:
                continue
            headers[site.name] = held.header()
            for key, tensor in held.state_dict().items():
                tensors[f"{site.name}/{key}"] = tensor.contiguous()
        save_file(tensors, self.folder / f"{block}.safetensors")
        partial = self.folder / f"{block}.partial"
        partial.write_text(json.dumps({"held": headers, "remarks": remarks}))
        partial.rename(self.folder / f"{block}.json")

    def restore(self, view: View, block: int) -> list[str] | None:
        """Put a finished block in place; its remarks, or None if it is not finished."""
        header = self.folder / f"{block}.json"
        if not header.is_file():
            return None
        record = json.loads(header.read_text())
        tensors = load_file(self.folder / f"{block}.safetensors")
        for site in view.sites(block):
            held = formats.from_header(record["held"][site.name])
            prefix = f"{site.name}/"
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            held.load_state_dict(own, assign=True)
            view.hold(site, held)
        return record["remarks"]

    def drop(self) -> None:
        """Forget everything, once the artefact no longer needs it."""
        shutil.rmtree(self.folder, ignore_errors=True)
