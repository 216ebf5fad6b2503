"""ZipLM: heads and neurons go by how little they are missed, under a budget or a measured time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend import formats
from backend.errors import ModelError
from backend.later import torch
from backend.methods.base import Effort, ModelMethod, Needs, Stage, Text, setting
from backend.methods.structure import _surgery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from backend.calibrate.walk import Walk
    from backend.methods.anatomy import Anatomy
    from backend.models.units import Group
    from backend.models.view import View

    Levels = list[int]

NARROWER = 0.95  # what one level of neurons keeps of the level before
STEPS = 2000  # of the cost of everything, at least, and so many for each group
STEPS_EACH = 64
RUNS = 5  # of which the fastest counts
WINDOWS = 8  # of calibration text, by which whole models are compared
MENDED = 1 / 3  # share of the weights that a draw mends anew
CHANGED = 0.1  # share of groups whose weight in the sum changes at a time


@dataclass(frozen=True)
class Ziplm(ModelMethod):
    """Remove heads and neurons one by one, what is left taking over what they said.

    In each matrix that reads heads or neurons the one goes next that the outputs miss least, by
    the inverse Hessian of the inputs; then the others are changed by what makes up for it best, and
    the next is looked for. How many go from which layer is chosen over the whole model, by
    dynamic programming over the errors, within the budget and, where a speed-up is asked for,
    within a table of times measured here for products of every width. Then layers are given more
    or less weight in that sum, by chance, as long as the whole model reads its text better.
    """

    stage = Stage.RESHAPE
    needs = Needs.HESSIAN
    paper = "arXiv 2302.04089"
    claim = "GPT-2 60 % smaller and 30 % faster than DistilGPT2, at better perplexity."
    limits = (
        "Token-wise distillation between steps is left out: this is the paper's one-shot form. One "
        "head and one neuron stay of each layer. Times are those of the blocks' matrices alone, "
        "taken while it runs, so that with a speed-up two runs may differ; one out of reach "
        "gives the fastest and says so."
    )
    yields = ("dense",)
    keeps = True

    bits: float = setting(
        13.0, "Bits per original number of the model, 16 for each that stays.", low=1.0, high=16.0
    )
    speedup: float = setting(
        1.0, "How much faster the blocks' products must be; 1 asks for nothing.", low=1.0, high=50.0
    )
    tokens: int = setting(128, "Tokens at once whose products are timed.", low=1, high=4096)
    trials: int = setting(20, "Draws of the layers' weights in the sum.", low=0, high=1000)
    damping: float = setting(
        0.01, "Share of the mean diagonal added to the Hessian.", low=1e-4, high=1.0
    )

    def least(self, anatomy: Anatomy) -> int:
        """One head and one neuron of each module, and all else.

        Raises:
            ModelError: no heads or neurons are found at all.
        """
        if not anatomy.units:
            raise ModelError("ziplm finds no heads or neurons in this model; take svd or lord.")
        if self.bits >= 16 and self.speedup <= 1:
            return 0  # nothing is cut
        return anatomy.numbers - sum((one.count - 1) * one.cost for one in anatomy.units)

    def effort(self, anatomy: Anatomy, text: Text) -> Effort:
        """Every number of weight and inverse for each unit that goes, and the draws' whole models.

        A draw mends about one weight in three anew, and reads a few windows.
        """
        touched = multiplied = 0.0
        for group in anatomy.units:
            columns = group.count * group.width
            touched += group.count * columns * (columns + 2 * group.outputs)
            multiplied += columns**2 * (columns / 3 + group.outputs)
        windows = WINDOWS * text.tokens / max(1, text.windows)
        draws = self.trials * (MENDED * multiplied + windows * anatomy.numbers)
        return Effort(draws, touched)

    def rewrite(self, walk: Walk) -> dict[str, Any]:
        """Cut the model of a walk.

        Raises:
            ModelError: no heads or neurons are found at all.
            OutOfReachError: one unit a module takes more than the budget.
        """
        from backend.models import units

        view = walk.view
        self.check(view.anatomy())
        groups, unknown = units.find(view)
        remarks = [f"{name}: no heads or neurons found; left whole." for name in unknown]
        cuts = list(self._observed(walk, groups))
        choice = _Choice(self, view, cuts)
        stay = choice.searched(walk.windows[:WINDOWS])
        shapes = {}
        for cut, count in zip(cuts, stay, strict=True):
            kept, weight = cut.at(count)
            shapes[cut.group.reader] = kept.tolist()
            units.cut(view, cut.group, kept, None, biased=False)
            if count < cut.group.units:
                columns = kept.repeat_interleave(cut.group.width).to(weight.device)
                view.model.get_submodule(cut.group.reader).weight.data.copy_(weight[:, columns])
        walk.restart()
        return {"kept": shapes, "remarks": [*remarks, *choice.remarks]}

    @classmethod
    def rebuild(cls, view: View, record: dict[str, Any]) -> None:
        """Give a skeleton the same shapes."""
        from backend.models import units

        for group in units.find(view)[0]:
            stay = torch.tensor(record["kept"][group.reader])
            units.cut(view, group, stay, None, biased=False)

    def _observed(self, walk: Walk, groups: list[Group]) -> Iterator[_Cut]:
        """Each group with the order in which its units go, on what the dense model feeds it."""
        for block in range(len(walk.view.blocks)):
            seen = walk.gather(block, Needs.HESSIAN)
            sites = {site.name: site for site in walk.view.sites(block)}
            for group in groups:
                if group.block == block:
                    weight = walk.view.weight(sites[group.reader])
                    yield _Cut(group, weight, seen[group.reader].damped(self.damping))
            walk.advance(block)


class _Cut:
    """What becomes of one group: how many units may stay, at what error, and the weights then."""

    def __init__(self, group: Group, weight: Tensor, hessian: Tensor) -> None:
        self.group, self._weight, self._hessian = group, weight, hessian
        self._order, losses = _surgery.removed(weight, hessian, group.width)
        self.counts = _counts(group.units, NARROWER if group.neurons else None)
        self.errors = [losses[group.units - count] for count in self.counts]
        self._made: tuple[int, Tensor] = (
            group.units,
            weight,
        )  # the last alone: each is a whole matrix

    def at(self, count: int) -> tuple[Tensor, Tensor]:
        """Which units stay where `count` do, on the processor, and the weight that reads them."""
        group = self.group
        stay = torch.ones(group.units, dtype=torch.bool)
        stay[self._order[: group.units - count]] = False
        if count != self._made[0]:
            columns = stay.repeat_interleave(group.width).to(self._weight.device)
            full = count == group.units
            parts = self._weight, self._hessian, columns
            self._made = count, self._weight if full else _surgery.mended(*parts)
        return stay, self._made[1]


class _Choice:
    """How many units stay of each group."""

    def __init__(self, method: Ziplm, view: View, cuts: list[_Cut]) -> None:
        self._method, self._view, self._cuts = method, view, cuts
        self._whole = view.numbers
        self.remarks: list[str] = []
        counted = [[float(count * cut.group.cost) for count in cut.counts] for cut in cuts]
        self._timed = method.speedup > 1
        self._costs = timed(view, cuts, method.tokens) if self._timed else counted
        self._dense = sum(max(each) for each in self._costs)

    def searched(self, windows: Tensor) -> list[int]:
        """Units that stay, by the weights in the sum with which the model reads best."""
        weights = [1.0] * len(self._cuts)
        levels = self._within(weights)
        draw = torch.Generator().manual_seed(0)
        if self._method.trials and any(self._gone(levels)):
            best = self._loss(levels, windows)
            for _ in range(self._method.trials):
                changed = torch.rand(len(weights), generator=draw) < CHANGED
                changed[torch.randint(len(weights), (1,), generator=draw)] = True
                fresh = torch.rand(len(weights), generator=draw)
                tried = [
                    float(new) if change else old
                    for old, new, change in zip(weights, fresh, changed, strict=True)
                ]
                found = self._within(tried)
                loss = best if found == levels else self._loss(found, windows)
                if loss < best:
                    best, weights, levels = loss, tried, found
        if self._timed:
            self._tell(levels)
        return [cut.counts[level] for cut, level in zip(self._cuts, levels, strict=True)]

    def _within(self, weights: list[float]) -> Levels:
        """The levels of least weighted error that keep the budget, and a time that is set."""
        errors = [
            [weight * error for error in cut.errors]
            for cut, weight in zip(self._cuts, weights, strict=True)
        ]
        steps = max(STEPS, STEPS_EACH * len(errors))
        spare = self._method.bits / 16 * self._whole - self._whole
        most = self._dense / self._method.speedup
        if not self._timed:
            most = self._dense + spare
        for levels in _surgery.Profiles(errors, self._costs, steps).under(most):
            fits = not self._timed or self._spent(levels) <= most
            if fits and -sum(self._gone(levels)) <= spare:
                return levels
        return [len(cut.counts) - 1 for cut in self._cuts]

    def _gone(self, levels: Levels) -> list[int]:
        """Numbers that go from each group."""
        return [
            (cut.group.units - cut.counts[level]) * cut.group.cost
            for cut, level in zip(self._cuts, levels, strict=True)
        ]

    def _spent(self, levels: Levels) -> float:
        return sum(each[level] for each, level in zip(self._costs, levels, strict=True))

    def _loss(self, levels: Levels, windows: Tensor) -> float:
        """How well the whole model reads some windows [windows, length] so, in nats a token."""
        view = self._view
        olds = {cut.group.reader: view.model.get_submodule(cut.group.reader) for cut in self._cuts}
        try:
            for cut, level in zip(self._cuts, levels, strict=True):
                old = olds[cut.group.reader]
                _, weight = cut.at(cut.counts[level])  # zeros read what has gone
                view.replace(cut.group.reader, _reading(weight, old))
            with torch.no_grad():
                return sum(map(self._nats, windows.split(1))) / len(windows)
        finally:
            for name, old in olds.items():
                view.replace(name, old)

    def _nats(self, window: Tensor) -> float:
        """Of a window [1, length] alone, as scores of all vocabulary are there for each token."""
        logits = self._view.model(input_ids=window, use_cache=False).logits[:, :-1]
        scores = logits.flatten(0, 1).to(torch.float32)
        return float(torch.nn.functional.cross_entropy(scores, window[:, 1:].flatten()))

    def _tell(self, levels: Levels) -> None:
        ratio = self._dense / self._spent(levels)
        asked = f"{self._method.speedup:g}x was asked for"
        self.remarks.append(f"By the times measured here products take {ratio:.2f}x less; {asked}.")


def timed(view: View, cuts: list[_Cut], tokens: int) -> list[list[float]]:
    """Seconds that the products of each group take at each of its levels; fewer never take more.

    Args:
        view: the model, whose device it is.
        cuts: groups and their levels.
        tokens: of a product.
    """
    known: dict[tuple[int, int], float] = {}

    def seconds(rows: int, columns: int) -> float:
        if (rows, columns) not in known:
            known[rows, columns] = _seconds(rows, columns, tokens, view.device)
        return known[rows, columns]

    found = []
    for cut in cuts:
        group = cut.group
        outputs = cut.at(group.units)[1].shape[0]
        inputs = {name: _inputs(view, name) for name in group.writers}
        times = []
        for count in cut.counts:
            own = seconds(outputs, count * group.width)
            for name, rows in group.writers.items():
                own += seconds(count * rows.shape[1], inputs[name])
            times.append(min(own, times[-1]) if times else own)
        found.append(times)
    return found


def _seconds(rows: int, columns: int, tokens: int, device: torch.device) -> float:
    """The least that a product by a matrix [rows, columns] took, as models are deployed."""
    held = formats.Dense.pack(torch.ones(rows, columns, device=device))
    states = torch.ones(tokens, columns, dtype=torch.bfloat16, device=device)
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    for _ in range(RUNS):
        wait()
        start = time.perf_counter()
        held.multiply(states)
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def _inputs(view: View, name: str) -> int:
    """Columns of the linear of this name."""
    block = next(one for one in view.all_sites() if one.name == name)
    return view.weight(block).shape[1]


def _counts(units: int, share: float | None) -> list[int]:
    """How many may stay, all first: each number, or each this share of the one before."""
    if share is None:
        return list(range(units, 0, -1))
    counts = [units]
    while counts[-1] > 1:
        counts.append(min(counts[-1] - 1, math.ceil(counts[-1] * share)))
    return counts


def _reading(weight: Tensor, old: torch.nn.Module) -> torch.nn.Module:
    """A linear with this weight and the bias of another."""
    made = torch.nn.Linear(*weight.T.shape, bias=False, device="meta")
    made.weight = torch.nn.Parameter(weight.to(old.weight.dtype), requires_grad=False)
    made.bias = old.bias
    return made
