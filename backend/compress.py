"""Runs a recipe over a model, block by block, with progress, remarks and resume.

What comes out is a model whose layers are held in formats; `backend.models.artefact` writes it.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend import formats, stacks
from backend.calibrate import runs, tuning
from backend.calibrate.gradients import by_block, of_each, row_salience
from backend.calibrate.modes import Bent, Kept, Parallel, Ranked, Sequential, Sloped, Source
from backend.calibrate.statistics import InputStatistics
from backend.calibrate.walk import Walk
from backend.checkpoint import Checkpoint
from backend.errors import OutOfReachError
from backend.formats import Format
from backend.methods.base import (
    LayerMethod,
    ModelMethod,
    Needs,
    RankingMethod,
    RepairMethod,
    RunMethod,
    StackMethod,
    Stage,
    TuneMethod,
)
from backend.models.encoding import encode
from backend.models.load import LoadedModel
from backend.models.tables import hold_tables
from backend.models.view import Site, View
from backend.recipes import Recipe, WeightMethod, digest
from backend.search.base import check_parts, check_reach
from backend.search.level_table import LevelTable
from backend.search.trial import Trial

Progress = Callable[[str, int, int], None]
CHECKED = 32
"""Tokens of a window on which blocks alone are compared with the model."""


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
        windows: calibration tokens [windows, length], which go where the model is.
        progress: told (stage, done, total).
        checkpoint: folder in which finished blocks are kept, to resume from.
        parallel: gather statistics on the dense blocks, not on the compressed ones.
        statistics: folder in which parallel statistics of this model and text are kept.
        levels: folder in which tables of levels are kept, one for each method, model and text.

    Raises:
        ParetoscopeError: the model cannot be treated, or a budget lies out of reach.
    """
    view = View(loaded.model)
    windows = windows.to(view.device)
    result = Compressed(view)
    model_methods = [stage for stage in recipe.stages if isinstance(stage, ModelMethod)]
    if not (model_methods or recipe.weight_methods or recipe.tables or recipe.encoder):
        return result
    view.check(windows[:2, :CHECKED])
    walk = Walk(view, windows) if model_methods else None
    for method in model_methods:
        progress(method.key(), 0, 1)
        record = method.rewrite(walk)
        result.remarks += record.pop("remarks", [])
        result.structure.append({"method": method.key(), **record})
    if recipe.weight_methods:
        kept = (None, None) if model_methods else (statistics, levels)
        calibration = _Calibration(view, windows, walk, parallel, *kept)
        _treat_matrices(calibration, recipe, result, progress, checkpoint)
    for tuner in [stage for stage in recipe.stages if isinstance(stage, TuneMethod)]:
        result.remarks += tuning.tune(view, windows, tuner, progress)
    if recipe.tables is not None:
        progress(recipe.tables.key(), 0, 1)
        result.remarks += hold_tables(view, recipe.tables)
    if recipe.encoder is not None:
        result.remarks += encode(view, recipe.encoder, progress)
    return result


@dataclass(frozen=True)
class _Calibration:
    """What statistics are gathered from, and where they may be kept."""

    view: View
    windows: Tensor
    walk: Walk | None
    parallel: bool
    kept: Path | None
    levels: Path | None

    def source(self, needs: Needs, parallel: bool, progress: Progress) -> Source:
        """Statistics of each block, gathered as needed or found where they are kept."""
        bends = Needs.GRADIENTS in needs
        fisher = by_block(self.view, self.windows, self.kept) if bends else None
        if parallel:
            progress("calibrate", 0, 1)
            kept = None if self.kept is None else Kept(self.kept, self.view.device)
            source: Source = Parallel(self._start, needs, len(self.view.blocks), kept)
        else:
            source = Sequential(self._start(), needs)
        if Needs.EACH_GRADIENT in needs:
            source = Sloped(source, functools.partial(of_each, self.view, self.windows))
        return source if fisher is None else Bent(source, fisher)

    def _start(self) -> Walk:
        return self.walk or Walk(self.view, self.windows)


def _treat_matrices(
    calibration: _Calibration,
    recipe: Recipe,
    result: Compressed,
    progress: Progress,
    checkpoint: Path | None,
) -> None:
    view, windows, methods = calibration.view, calibration.windows, recipe.weight_methods
    needs = Needs.NOTHING
    for method in methods:
        needs |= method.wants()
    if needs and any(method.stage is Stage.FACTOR for method in methods):
        needs |= Needs.HESSIAN  # what a factor makes of its inputs follows from their moments
    if recipe.division is not None or isinstance(methods[0], StackMethod):
        source = functools.cache(lambda: calibration.source(needs | Needs.HESSIAN, True, progress))
        chosen = _chosen(calibration, source, recipe, progress)
        _put(view, source, chosen, methods[1:])
        return
    work = [recipe.to_json(), calibration.parallel, _shapes(view), windows.tolist()]
    saved = None if checkpoint is None else Checkpoint(checkpoint, digest(work))
    if isinstance(first := methods[0], RunMethod):
        source = functools.cache(lambda: calibration.source(needs, True, progress))
        kept = None if saved is None else saved.folder
        entered = lambda block: source().enter(block)  # noqa: E731
        chosen = runs.learn(view, windows, first, entered, kept=kept, progress=progress)
        _put(view, source, chosen, methods[1:])
        if saved is not None:
            saved.drop()
        return
    fine_rows = _fine_rows(view, windows, methods[0], progress)
    source = calibration.source(needs, calibration.parallel, progress)
    if fine_rows is not None:
        source = Ranked(source, fine_rows)
    _treat_blocks(view, source, methods, result, progress=progress, saved=saved)


def _fine_rows(
    view: View, windows: Tensor, method: WeightMethod, progress: Progress
) -> dict[str, Tensor] | None:
    """Which rows of each site a method that ranks all of them holds finer, by name."""
    if not isinstance(method, RankingMethod):
        return None
    progress("rank", 0, 1)
    weights = {site.name: view.weight(site) for site in view.all_sites()}
    changes = {name: method.change(weight) for name, weight in weights.items()}
    salience = row_salience(view, windows, changes)
    return method.fine_rows(salience, {name: one.shape[1] for name, one in weights.items()})


def _treat_blocks(
    view: View,
    source: Source,
    methods: tuple[WeightMethod, ...],
    result: Compressed,
    *,
    progress: Progress,
    saved: Checkpoint | None,
) -> None:
    blocks = len(view.blocks)
    for block in range(blocks):
        progress("compress", block, blocks)
        remarks = None if saved is None else saved.restore(view, block)
        if remarks is None:
            remarks = []
            treat = functools.partial(_treat, view, methods, remarks)
            source.treat(block, view.sites(block), treat)
            if saved is not None:
                saved.keep(view, block, remarks)
        else:
            source.skip(block)
        result.remarks += remarks
    if saved is not None:
        saved.drop()
    progress("compress", blocks, blocks)


def _treat(
    view: View,
    methods: tuple[WeightMethod, ...],
    remarks: list[str],
    site: Site,
    statistics: InputStatistics,
) -> None:
    """Put a layer into its formats, and what there is to say of it among the remarks."""
    weight = view.weight(site)
    held: Format = formats.Dense.pack(weight, dtype=torch.float32)
    if statistics.count == 0 and any(method.wants() for method in methods):
        remarks.append(f"{site.name}: no calibration token reached it; treated without.")
    for method in methods:
        if isinstance(method, LayerMethod) and (remark := method.remark(*held.shape)):
            remarks.append(f"{site.name}: {remark}")
        try:
            if isinstance(method, RepairMethod):
                held = method.mend(weight, held, statistics)
            else:
                held = refit(method, held, statistics)
        except OutOfReachError as error:
            raise OutOfReachError(f"{site.name}: {error}") from error
    view.hold(site, held)


def refit(method: LayerMethod, held: Format, statistics: InputStatistics) -> Format:
    """Let a method treat what an earlier one left dense in a format.

    The right factor of a product sees the layer's inputs, the left one what the right makes of
    them. Of a sparse matrix the values that are there are treated; those left out stay out.
    """
    if isinstance(held, formats.Dense):
        return method.fit(held.dense(), statistics)
    if isinstance(held, formats.LowRank):
        right = held.right.dense()
        inner = statistics.through(right) if method.wants() else statistics
        held.left = method.fit(held.left.dense(), inner)
        held.right = method.fit(right, statistics)
        return held
    if isinstance(held, formats.Sparse):
        held.values = method.fit_sparse(held, statistics)
        return held
    raise OutOfReachError(f"{method.key()} cannot treat what is held as {held.key}.")


def _chosen(
    calibration: _Calibration,
    source: Callable[[], Source],
    recipe: Recipe,
    progress: Progress,
) -> dict[str, Format]:
    """What holds each site where a budget is not divided evenly, by name."""
    view, windows, method = calibration.view, calibration.windows, recipe.layer_methods[0]
    if recipe.division is None:
        assert isinstance(method, StackMethod), "an even budget is chosen site by site"
        kept = calibration.kept
        sites = calibration.view.all_sites()
        check_parts(method, [tuple(view.weight(site).shape) for site in sites])
        return stacks.load(view, source, method, windows, kept=kept, progress=progress)
    name = digest([str(calibration.kept), method.ladder])
    kept = calibration.levels / name if calibration.kept and calibration.levels else None
    with contextlib.ExitStack() as stack:
        if kept is None:  # a folder below the temporary one, for a shelf holds nothing else
            kept = Path(stack.enter_context(tempfile.TemporaryDirectory()), "levels")
        statistics = lambda block: source().enter(block)  # noqa: E731
        levels = LevelTable.build(view, statistics, method, progress, kept)
        budget = levels.table.budget(method.settings()[method.level])
        least = sum(row[0] for row in levels.table.costs)
        check_reach(recipe.text(), least, sum(levels.table.numbers), budget)
        trial = stack.enter_context(Trial(view, levels, windows).restored())
        chosen = recipe.division.divide(trial, budget, progress)
        held = [levels.held(index, level) for index, level in enumerate(chosen)]
    return {site.name: one for site, one in zip(levels.sites, held, strict=True)}


def _put(
    view: View,
    source: Callable[[], Source],
    chosen: dict[str, Format],
    repairs: tuple[WeightMethod, ...],
) -> None:
    for block in range(len(view.blocks)):
        statistics = source().enter(block) if repairs else {}
        for site in view.sites(block):
            held = chosen[site.name]
            for repair in repairs:
                assert isinstance(repair, RepairMethod), "one layer method is divided"
                held = repair.mend(view.weight(site), held, statistics[site.name])
            view.hold(site, held)


def _shapes(view: View) -> list[list[str | int]]:
    return [[name, *part.shape] for name, part in view.model.named_parameters()]
