"""A matrix on an integer grid whose steps are learned, and its rounding by two thin matrices.

The mathematics of CBQ (arXiv 2312.07950). A weight w at place p = (w - offset) / step + middle of
its grid has the code floor(p) + h(v), where h stretches a sigmoid a little beyond 0 and 1 and cuts
it off there (AdaRound, arXiv 2004.10568). v begins so that h(v) is what p is beyond floor(p);
what is learned is added to it, A1 A2 of a low rank, so that the weights of a matrix round up and
down together. Forwards h is 0 or 1, as it will be; its slope is taken backwards.

The paper's are: floor and h, the low rank, the outliers beyond T = Q3 + 1.5 (Q3 - Q1), of which
those go that make M = (gap between both sides)^2 - (variance of those kept) largest, and what
follows: weights are cut, channels of inputs scaled. Ours are: v begins at the weight's fraction,
so that nothing learned is rounding to nearest; slopes are taken backwards in place of a penalty;
a row's weights are cut only where that rounds better; and a channel is divided by the root of its
peak over the largest that is kept. Over the largest outlier, as the paper's Max(O*) could be read
too, no channel would shrink.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from backend import formats
from backend.formats.rounded_inputs import WHOLE, largest, rounded
from backend.methods.quantise import _grid

if TYPE_CHECKING:
    from backend.calibrate.statistics import InputStatistics
    from backend.formats import Format

WHISKER = 1.5  # interquartile ranges beyond the third quartile from which numbers are outliers
STRETCH, BELOW = 1.2, -0.1  # of the sigmoid: its height, and where it begins
SURE = 1e-3  # how near to 0 and 1 a share of the stretched sigmoid comes


def outliers_from(sizes: Tensor) -> float:
    """The smallest of those sizes that stand apart from all others; infinity where none does.

    Coarse to fine: candidates lie beyond the third quartile by 1.5 interquartile ranges. Sorted,
    they are cut where the squared gap between both sides is larger than the variance of all kept
    below it by the most; where it never is, none stands apart.

    Args:
        sizes: numbers >= 0, in any shape.
    """
    ordered = sizes.flatten().sort().values.to(torch.float64)
    count = len(ordered)
    low, high = ordered[count // 4], ordered[min(count - 1, 3 * count // 4)]
    first = int(torch.searchsorted(ordered, high + WHISKER * (high - low), right=True))
    if first == count:
        return float("inf")
    found = ordered[first:]
    places = torch.arange(1, len(found) + 1, dtype=torch.float64, device=found.device)
    mean = found.cumsum(0) / places
    spread = (found.square().cumsum(0) / places - mean.square()).clamp(min=0)
    # Cut before the first candidate, what is kept ends below all of them and has no variance.
    gaps = torch.diff(found, prepend=ordered[max(0, first - 1) : max(1, first)]).square()
    within = torch.cat([spread.new_zeros(1), spread[:-1]])
    gain = gaps - within
    best = int(gain.argmax())
    return float(found[best]) if gain[best] > 0 else float("inf")


def divisors_of(inputs: Tensor) -> Tensor:
    """What each channel of inputs [tokens, columns] is divided by, [columns], in 16 bits.

    The root of how far the largest input of a channel that stands apart reaches beyond the largest
    of all others, so that input and weight share what is too much; one for all other channels.
    """
    peaks = inputs.abs().amax(0)
    apart = peaks >= outliers_from(peaks)
    if not bool(apart.any()):
        return torch.ones_like(peaks)
    most = peaks[~apart].amax().clamp(min=_grid.TINY)
    return torch.where(apart, _grid.in_16_bits((peaks / most).sqrt()), 1.0)


class LowRankRounding:
    """A weight [rows, columns] while its steps, rounding and reach of inputs are learned."""

    def __init__(
        self,
        weight: Tensor,
        statistics: InputStatistics,
        plan: _grid.Plan,
        *,
        inputs: int,
        rank: int,
    ) -> None:
        self._plan, self._bits = plan, inputs
        rows, columns = weight.shape
        self._divisors = None
        hessian = statistics.hessian
        if inputs < WHOLE:
            self._divisors = divisors_of(statistics.sampled())
            weight = weight * self._divisors
            hessian = hessian / self._divisors / self._divisors.unsqueeze(1)
        self._weight = weight
        self._mask, self._offsets, scales = _begun(weight, hessian, plan)
        widths = torch.where(self._mask, float(plan.fine), float(plan.coarse))
        self._middle = torch.exp2(widths - 1).unsqueeze(1)
        self._top = 2 * self._middle - 1
        draw = torch.Generator().manual_seed(0)
        right = torch.randn(rank, columns, generator=draw).to(weight.device) / rank**0.5
        self.left = torch.zeros(rows, rank, device=weight.device, requires_grad=True)
        self.right = right.requires_grad_()
        self._scales = scales
        self.steps = torch.zeros_like(scales).requires_grad_()
        self.reach = torch.full((1,), 3.0, device=weight.device, requires_grad=inputs < WHOLE)

    def learned(self) -> list[Tensor]:
        """Both thin matrices, how far steps move the end of their grid, and the reach."""
        return [self.left, self.right, self.steps, *([self.reach] if self._bits < WHOLE else [])]

    def multiply(self, inputs: Tensor) -> Tensor:
        """Inputs [..., columns] times what the weight is by now, both rounded."""
        codes, scales = self._codes()
        size, columns = self._plan.group_size, self._weight.shape[1]
        matrix = (codes - self._middle) * _spread(scales, size, columns)
        matrix = matrix + _spread(self._offsets, size, columns)
        found = inputs.to(torch.float32)
        if self._divisors is not None:
            tops = torch.full((1,), largest(self._bits), device=inputs.device)
            found = found / self._divisors
            found = rounded(found, tops, columns, self.reach.sigmoid(), _nearest)
        return found @ matrix.T

    @torch.no_grad()
    def held(self) -> Format:
        """Codes, steps and offsets, and how inputs are divided and rounded before them."""
        codes, scales = self._codes()
        held = _grid.hold(codes, scales, self._offsets, self._mask, self._plan)
        if self._divisors is None:
            return held
        reach = float(self.reach.sigmoid())
        return formats.RoundedInputs.pack(
            held, bits=self._bits, reach=reach, divisors=self._divisors
        )

    def _codes(self) -> tuple[Tensor, Tensor]:
        """Codes [rows, columns], whole numbers, and steps [rows, groups], as they are held."""
        scales = (self._scales * (self.steps / self._top).exp()).clamp(min=_grid.TINY)
        scales = scales + (_grid.in_16_bits(scales) - scales).detach()
        size, columns = self._plan.group_size, self._weight.shape[1]
        offsets = _spread(self._offsets, size, columns)
        places = (self._weight - offsets) / _spread(scales, size, columns) + self._middle
        lower = places.detach().floor()
        share = (places.detach() - lower).clamp(SURE, 1 - SURE)
        soft = rising(torch.logit((share - BELOW) / STRETCH) + self.left @ self.right)
        up = soft + ((soft > 0.5).to(soft.dtype) - soft).detach()
        codes = lower + (places - places.detach()) + up
        return torch.minimum(codes.clamp(min=0), self._top), scales


def rising(values: Tensor) -> Tensor:
    """The stretched sigmoid, cut off at 0 and 1."""
    return (values.sigmoid() * STRETCH + BELOW).clamp(0, 1)


def _begun(weight: Tensor, hessian: Tensor, plan: _grid.Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Rows with the wider codes [rows], offsets and scales [rows, groups] to begin with.

    Ranges end before weights that stand apart, in rows that round better so.
    """
    cut = outliers_from(weight.abs())
    inside = weight.abs()[weight.abs() < cut]
    most = float(inside.max()) if inside.numel() else 0.0
    sides = [weight, weight.clamp(-most, most)] if inside.numel() < weight.numel() else [weight]

    def best(width: int) -> tuple[Tensor, Tensor, Tensor]:
        tried = [_ranged(weight, side, hessian, width, plan.group_size) for side in sides]
        losses = torch.stack([one[2] for one in tried])
        chosen = losses.argmin(0).unsqueeze(1)
        scales, offsets = (
            tried[0][part]
            if len(tried) == 1
            else torch.where(chosen == 1, tried[1][part], tried[0][part])
            for part in (0, 1)
        )
        return scales, offsets, losses.amin(0)

    narrow, wide = best(plan.coarse), best(plan.fine)
    mask = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
    if plan.fine != plan.coarse and plan.fine_rows:
        mask = _grid.fine_mask(narrow[2] - wide[2], plan)
    scales, offsets = (torch.where(mask.unsqueeze(1), wide[part], narrow[part]) for part in (0, 1))
    return mask, offsets, scales


def _ranged(
    weight: Tensor, side: Tensor, hessian: Tensor, width: int, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Scales and offsets [rows, groups] by the ranges of `side`, and what rounding loses by row."""
    scales, offsets = _grid.ranges(_grid.grouped(side, size), width, symmetric=False)
    spread = [_spread(part, size, weight.shape[1]) for part in (scales, offsets)]
    change = _grid.decode(_grid.encode(weight, *spread, width), *spread, width) - weight
    return scales, offsets, ((change @ hessian) * change).sum(1)


def _spread(groups: Tensor, size: int, columns: int) -> Tensor:
    """A number of each group at each of its columns, [rows, columns]."""
    return groups.repeat_interleave(size, 1)[:, :columns]


def _nearest(values: Tensor) -> Tensor:
    """The nearest whole numbers, whose slope is taken for one."""
    return values + (values.round() - values).detach()
