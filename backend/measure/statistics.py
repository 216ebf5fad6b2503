"""Intervals, tests and resampling by protocol cq-2: tokens of one document are never independent.

numpy and `scipy.special` only. What is drawn from these numbers (fronts, hypervolume) is in
`fronts`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

FEWEST_CLUSTERS = 8


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; the ends are absent where none can be given."""

    value: float
    low: float | None = None
    high: float | None = None
    samples: int = 0
    note: str = ""

    def through(self, function: Callable[[float], float]) -> Interval:
        """Return the interval of a monotone function of the estimate."""
        ends = [None if end is None else function(end) for end in (self.low, self.high)]
        if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
            ends.reverse()
        return Interval(function(self.value), ends[0], ends[1], self.samples, self.note)


def clustered_mean(values: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of `values` [n] with an interval robust to dependence within clusters.

    The standard error is sqrt(G/(G−1) Σ_g (Σ_{t∈g} (x_t − mean))²)/n with a t quantile of G−1
    degrees (Miller, arXiv 2411.00640).

    Args:
        values: one number per token or item.
        clusters: the document [n] each belongs to, any integers.
        level: coverage of the interval.
    """
    values = np.asarray(values, np.float64)
    if not values.size:
        return Interval(math.nan, note="no samples")
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    groups = int(member.max()) + 1
    mean = float(values.mean())
    if groups < FEWEST_CLUSTERS:
        note = f"n too small: {groups} documents, an interval needs {FEWEST_CLUSTERS}"
        return Interval(mean, samples=values.size, note=note)
    sums = np.bincount(member, values - mean, groups)
    error = math.sqrt(groups / (groups - 1) * float(sums @ sums)) / values.size
    margin = float(special.stdtrit(groups - 1, 0.5 + level / 2)) * error
    return Interval(mean, mean - margin, mean + margin, values.size)


def clustered_log_mean(values: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of positive `values` with an interval symmetric on the log scale."""
    plain = clustered_mean(values, clusters, level)
    if plain.high is None or not plain.value > 0:
        return plain
    factor = math.exp(min((plain.high - plain.value) / plain.value, 700.0))
    return Interval(plain.value, plain.value / factor, plain.value * factor, plain.samples)


def paired_difference(
    variant: ArrayLike, other: ArrayLike, clusters: ArrayLike, level: float = 0.95
) -> Interval:
    """Return the mean of variant − other over the same tokens, clustered by document."""
    first, second = np.asarray(variant, np.float64), np.asarray(other, np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"A difference is taken over the same tokens; these are {first.size} and {second.size}."
        )
    return clustered_mean(first - second, clusters, level)


def bootstrap_weights(clusters: int, replicates: int = 2000, seed: int = 0) -> NDArray[np.float64]:
    """Return how often each cluster is drawn [replicates, clusters], the same for every caller.

    One matrix for all configurations keeps them paired: multiply it with per-cluster sums.
    """
    drawn = np.random.default_rng(seed).integers(0, clusters, (replicates, clusters))
    rows = np.arange(replicates)[:, None] * clusters
    counts = np.bincount((drawn + rows).ravel(), minlength=replicates * clusters)
    return counts.reshape(replicates, clusters).astype(np.float64)


def bootstrap_means(
    values: ArrayLike, clusters: ArrayLike, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean of each replicate [replicates, K] for `values` [n, K] or [n].

    Args:
        values: one column per configuration, the same tokens in the same order.
        clusters: cluster [n] of each row, from 0 to the width of `weights` less one.
        weights: what `bootstrap_weights` returned.
    """
    values = np.asarray(values, np.float64)
    table = values[:, None] if values.ndim == 1 else values
    member, groups = np.asarray(clusters, np.int64), weights.shape[1]
    sums = np.zeros((groups, table.shape[1]))
    np.add.at(sums, member, table)
    counts = np.bincount(member, minlength=groups).astype(np.float64)
    means = (weights @ sums) / np.maximum(weights @ counts, 1e-300)[:, None]
    return means[:, 0] if values.ndim == 1 else means


def bootstrap_percentiles(
    values: ArrayLike,
    clusters: ArrayLike,
    ranks: Sequence[float],
    weights: NDArray[np.float64],
    bins: int = 4096,
) -> NDArray[np.float64]:
    """Return the percentiles [replicates, len(ranks)] of each replicate of `values` [n].

    Sorted values fall into bins of equal count, so that a replicate is one row of a matrix
    product; a percentile is exact to 1/bins of rank.
    """
    values, member = np.asarray(values, np.float64), np.asarray(clusters, np.int64)
    order = np.argsort(values, kind="stable")
    size, bins = values.size, min(bins, values.size)
    bin_of = np.arange(size) * bins // size
    top = values[order][np.append(np.flatnonzero(np.diff(bin_of)), size - 1)]
    counts = np.zeros((weights.shape[1], bins))
    np.add.at(counts, (member[order], bin_of), 1.0)
    cumulative = np.cumsum(weights @ counts, axis=1)
    total = cumulative[:, -1:]
    columns = [
        top[np.minimum((cumulative < total * rank / 100).sum(axis=1), bins - 1)] for rank in ranks
    ]
    return np.stack(columns, axis=1)


def central(replicates: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the central interval of bootstrap replicates."""
    low, high = np.quantile(np.asarray(replicates), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Return a share with Wilson's interval, honest near 0 and 1 too."""
    if trials <= 0:
        return Interval(math.nan, note="no items")
    z = float(special.ndtri(0.5 + level / 2))
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    spread = math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    margin = z * spread / (1 + z * z / trials)
    low = 0.0 if successes == 0 else centre - margin
    high = 1.0 if successes == trials else centre + margin
    return Interval(share, low, high, trials)


def rule_of_three(trials: int) -> float:
    """Return the 95 % upper bound of a share whose event never happened in `trials`."""
    return min(1.0, 3.0 / trials) if trials > 0 else 1.0


def mcnemar(lost: int, gained: int) -> float:
    """Return the exact two-sided p that `lost` against `gained` outcomes is chance."""
    total = lost + gained
    if not total:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(lost, gained), total, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for having asked all the questions (Holm 1979), in given order."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def trimmed_mean(values: ArrayLike, trim: float = 0.2) -> float:
    """Return the mean of what is left when a share `trim` is cut from both ends."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = int(trim * ordered.size)
    return float(ordered[cut : ordered.size - cut].mean())


def speed_ratio(
    dense: ArrayLike, variant: ArrayLike, replicates: int = 1000, seed: int = 0
) -> Interval:
    """Return how many times faster `variant` is: exp of the 20 % trimmed mean log ratio.

    Args:
        dense: seconds of the dense arm in each round.
        variant: seconds of the other arm in the same rounds.
        replicates: bootstrap resamplings of the rounds.
        seed: of the resampling.
    """
    logs = np.log(np.asarray(dense, np.float64)) - np.log(np.asarray(variant, np.float64))
    value = math.exp(trimmed_mean(logs))
    if logs.size < 3:
        return Interval(value, samples=logs.size, note=f"{logs.size} rounds are too few")
    drawn = np.random.default_rng(seed).integers(0, logs.size, (replicates, logs.size))
    ordered = np.sort(logs[drawn], axis=1)
    cut = int(0.2 * logs.size)
    low, high = central(ordered[:, cut : logs.size - cut].mean(axis=1))
    return Interval(value, math.exp(low), math.exp(high), logs.size)


def kaplan_meier_median(times: Sequence[float], observed: Sequence[bool]) -> float | None:
    """Return the median time to an event when some were never seen to happen.

    Args:
        times: when the event happened, or when watching ended.
        observed: whether it happened.

    Returns:
        The first time at which at most half survive, or None where more than half do.
    """
    survival, at_risk = 1.0, len(times)
    for time in sorted(set(times)):
        here = [seen for each, seen in zip(times, observed, strict=True) if each == time]
        survival *= 1 - sum(here) / at_risk
        if survival <= 0.5 + 1e-12:
            return float(time)
        at_risk -= len(here)
    return None


def relative_half_width(interval: Interval) -> float:
    """Return half the width on the log scale; infinite without an interval."""
    if interval.low is None or interval.high is None or interval.low <= 0:
        return math.inf
    return (math.log(interval.high) - math.log(interval.low)) / 2


def as_fields(interval: Interval, scale: float = 1.0) -> dict[str, Any]:
    """Return value, low, high, samples and note as arguments of a reading, scaled."""
    ends = (None if end is None else end * scale for end in (interval.low, interval.high))
    low, high = ends
    return {
        "value": interval.value * scale,
        "low": low,
        "high": high,
        "samples": interval.samples,
        "note": interval.note,
    }
