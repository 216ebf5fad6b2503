"""Fronts between points that carry uncertainty: dominance, ties, hypervolume and knee.

Every axis is minimised. Replicates are joint: row b of every point comes from the same draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]


def better(first: ArrayLike, second: ArrayLike, epsilon: ArrayLike = 0.0) -> NDArray[np.bool_]:
    """Return whether `first` [..., axes] dominates `second`: no worse anywhere, better somewhere.

    Args:
        first: points, smaller is better.
        second: points that broadcast against them.
        epsilon: relative difference per axis up to which two values are a tie.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    worse, gains = np.False_, np.False_
    for axis, share in enumerate(np.broadcast_to(np.asarray(epsilon), first.shape[-1])):
        one, (low, high) = first[..., axis], _tie(second[..., axis], share)
        worse, gains = worse | (one > high), gains | (one < low)
    return np.asarray(~worse & gains)


def _tie(values: FloatArray, epsilon: float) -> tuple[FloatArray, FloatArray]:
    """Return the least and largest that tie with values: apart by `epsilon` of the smaller."""
    grown, shrunk = values * (1 + epsilon), values / (1 + epsilon)
    return np.minimum(grown, shrunk), np.maximum(grown, shrunk)


def dominance_probability(first: ArrayLike, second: ArrayLike, epsilon: ArrayLike = 0.0) -> float:
    """Return the share of joint replicates [B, axes] in which `first` dominates `second`."""
    return float(better(first, second, epsilon).mean())


def front_probability(replicates: ArrayLike, epsilon: ArrayLike = 0.0) -> FloatArray:
    """Return for each point [N] the share of `replicates` [B, N, axes] no other point dominates."""
    replicates = np.asarray(replicates, np.float64)
    if replicates.shape[2] == 2 and not np.isnan(replicates).any():
        return (~_beaten(replicates, epsilon)).mean(axis=0)
    survives = np.ones(replicates.shape[:2], bool)
    for rival in range(replicates.shape[1]):
        survives &= ~better(replicates[:, rival : rival + 1], replicates, epsilon)
    return survives.mean(axis=0)


def _beaten(points: FloatArray, epsilon: ArrayLike) -> NDArray[np.bool_]:
    """Return which of `points` [B, N, 2] another of their row dominates, by one sweep of each row.

    A point is beaten by what is clearly less in x and no worse in y, or no worse in x and clearly
    less in y: in the order of x, each asks for the least y before a place.
    """
    across, up = np.broadcast_to(np.asarray(epsilon, np.float64), 2)
    found = np.empty(points.shape[:2], bool)
    least = np.full(points.shape[1] + 1, np.inf)
    for row, (x, y) in enumerate(zip(points[..., 0], points[..., 1], strict=True)):
        (x_low, x_high), (y_low, y_high) = _tie(x, across), _tie(y, up)
        order = np.argsort(x)
        np.minimum.accumulate(y[order], out=least[1:])
        ahead = least[np.searchsorted(x, x_low, "left", order)]
        level = least[np.searchsorted(x, x_high, "right", order)]
        found[row] = (ahead <= y_high) | (level < y_low)
    return found


def front(points: ArrayLike, epsilon: ArrayLike = 0.0) -> list[int]:
    """Return the indices of the `points` [N, axes] that none dominates."""
    points = np.asarray(points, np.float64)
    return [int(index) for index in np.flatnonzero(front_probability(points[None], epsilon) > 0.5)]


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the exact area between 2-D `points` [N, 2] and the `reference` corner [2].

    A point outside the corner adds nothing.
    """
    corner = np.asarray(reference, np.float64)
    points = np.asarray(points, np.float64)
    area, ceiling = 0.0, float(corner[1])
    for x, y in sorted(points[(points < corner).all(axis=-1)].tolist()):
        if y < ceiling:
            area += (float(corner[0]) - x) * (ceiling - y)
            ceiling = y
    return area


def contributions(points: ArrayLike, reference: ArrayLike) -> list[float]:
    """Return the area [N] that would be lost without each point."""
    points = np.asarray(points, np.float64)
    whole = hypervolume(points, reference)
    return [
        whole - hypervolume(np.delete(points, index, axis=0), reference)
        for index in range(len(points))
    ]


def normalise(
    size: ArrayLike, distance: ArrayLike, parameters: int, dense_bytes: float, floor: float
) -> FloatArray:
    """Return points [..., 2] in the unit square of log2 bytes and ln KL divergence.

    The ideal, (0, 0), is 1 bit per parameter at the noise floor; the corner, (1, 1), is the dense
    size at 1 nat. Distances below the floor count as the floor.
    """
    smallest, largest = np.log2(parameters / 8), np.log2(dense_bytes)
    low = np.log(min(max(floor, 1e-12), 0.5))
    x = (np.log2(np.asarray(size, np.float64)) - smallest) / (largest - smallest)
    y = 1 - np.log(np.maximum(np.asarray(distance, np.float64), np.exp(low))) / low
    return np.stack(np.broadcast_arrays(x, y), axis=-1)


def knee(points: ArrayLike) -> int | None:
    """Return the index of the front point farthest below the chord of the front.

    Args:
        points: normalised points [N, 2].

    Returns:
        None with fewer than four points on the front inside the unit square, or where none of
        them lies below the chord.
    """
    points = np.asarray(points, np.float64)
    inside = [index for index in front(points) if (points[index] <= 1).all()]
    members = sorted(inside, key=lambda index: tuple(points[index]))
    if len(members) < 4:
        return None
    start, end = points[members[0]], points[members[-1]]
    along = end - start
    if not np.linalg.norm(along) > 0:
        return None
    offsets = points[members] - start
    below = (along[1] * offsets[:, 0] - along[0] * offsets[:, 1]) / np.linalg.norm(along)
    return members[int(np.argmax(below))] if below.max() > 0 else None


def knee_frequency(replicates: Sequence[ArrayLike] | FloatArray) -> tuple[int | None, float]:
    """Return the most frequent knee over `replicates` [B, N, 2] and its share of them."""
    found = [knee(points) for points in np.asarray(replicates, np.float64)]
    votes = [index for index in found if index is not None]
    if not votes:
        return None, 0.0
    winner = max(sorted(set(votes)), key=votes.count)
    return winner, votes.count(winner) / len(found)
