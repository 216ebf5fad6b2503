"""How surely each run stands on a frontier: joint draws of what was measured; imports no torch.

Divergences of runs over the same documents are drawn together, document by document, so that
what their texts have in common does not blur their difference. Other readings are drawn from
their own intervals, exact counts not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from backend.measure import fronts, statistics
from backend.measure.catalogue import metric

REPLICATES = 1000
SAME = {"size": 0.01, "quality": 0.05, "speed": 0.03}  # relative differences that are ties
JOINT = ("kld_mean", "dnll", "ppl_ratio", "top1_agree")
MOST = 250  # runs of a group that are drawn against each other
TIE = (0.05, 0.95)

Sums = Callable[[str], Mapping[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Summary:
    """The area that a front covers in (log2 bytes, ln divergence), and its knee.

    Attributes:
        hypervolume: share of the unit square, from 1 bit a weight at the floor of noise to the
            dense size at 1 nat.
        low: lower end of the 95 % interval.
        high: upper end.
        knee: the run farthest below the chord of the front; empty where the front has fewer
            than four runs or the knee is not sure.
        knee_share: share of the draws in which that run is the knee.
    """

    hypervolume: float
    low: float
    high: float
    knee: str
    knee_share: float


def judge(frame: pd.DataFrame, x: str, y: str, sums: Sums) -> pd.DataFrame:
    """The frontier's rows with `p_front`, the probability that none dominates, and `tied`.

    Args:
        frame: as the store's frontier gives it.
        x: metric across.
        y: metric up.
        sums: documents' sums of a run by its id; empty where it has none.
    """
    judged = frame.assign(p_front=0.0, tied=False)
    able = (frame["status"] == "done") & (frame["x_direction"] != "none")
    able &= frame["y_direction"] != "none"
    for _, rows in frame[able].groupby(["model", "protocol", "hardware_id"]):
        near = _near(rows)
        drawn = np.stack([_draws(near, "x", x, sums), _draws(near, "y", y, sums, seed=1)], axis=-1)
        share = fronts.front_probability(drawn, [_same(x), _same(y)])
        judged.loc[near.index, "p_front"] = share
    judged["tied"] = judged["p_front"].between(*TIE, inclusive="neither")
    return judged


def summarise(
    frame: pd.DataFrame, sums: Sums, *, parameters: int, dense_bytes: float, floor: float
) -> Summary | None:
    """Hypervolume and knee of runs [bytes, divergence] of one model, protocol and machine."""
    rows = frame[(frame["status"] == "done") & (frame["x"] < dense_bytes)]
    if not len(rows):
        return None
    sizes = _draws(rows, "x", "resident_bytes", sums)
    distances = _draws(rows, "y", "kld_mean", sums, seed=1)
    points = fronts.normalise(sizes, distances, parameters, dense_bytes, floor)
    areas = np.array([fronts.hypervolume(one, (1.0, 1.0)) for one in points])
    low, high = statistics.central(areas)
    knee, share = fronts.knee_frequency(points[:200])
    sure = knee is not None and share >= 0.5
    run_id = str(rows["run_id"].iloc[knee]) if sure and knee is not None else ""
    return Summary(float(np.median(areas)), low, high, run_id, share)


def _near(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that may stand on the front at all: not surely dominated, the nearest first."""
    if len(rows) <= MOST:
        return rows
    sign = [1.0 if rows[f"{a}_direction"].iloc[0] == "lower" else -1.0 for a in "xy"]
    across = (sign[0] * rows["x"]).to_numpy()
    ends = rows[["y_low", "y_high"]].to_numpy() * sign[1]
    value = (sign[1] * rows["y"]).to_numpy()
    best = np.fmin(value, np.nanmin(np.c_[ends, value], axis=1))
    worst = np.fmax(value, np.nanmax(np.c_[ends, value], axis=1))
    order = np.argsort(across, kind="stable")
    ceiling = np.minimum.accumulate(np.concatenate([[np.inf], worst[order][:-1]]))
    alive = order[best[order] <= ceiling]
    gap = best[alive] - ceiling[best[order] <= ceiling]
    return rows.iloc[np.sort(alive[np.argsort(gap)[:MOST]])]


def _draws(rows: pd.DataFrame, axis: str, name: str, sums: Sums, seed: int = 0) -> np.ndarray:
    """Replicates [draws, runs] of a reading, turned so that less is better."""
    values = rows[axis].to_numpy(np.float64)
    low, high = (rows[f"{axis}_{end}"].to_numpy(np.float64) for end in ("low", "high"))
    held = np.isfinite(low) & np.isfinite(high)
    positive = held & (low > 0)
    plain = held & ~positive
    spread = np.zeros(len(values))  # of the logarithm where a reading is positive
    spread[positive] = np.log(high[positive] / low[positive]) / 3.92
    spread[plain] = (high[plain] - low[plain]) / 3.92
    # In place, since of hundreds of runs each such array takes megabytes.
    drawn = np.random.default_rng(seed).standard_normal((REPLICATES, len(values)))
    drawn *= spread
    np.exp(drawn, out=drawn, where=positive)
    drawn *= np.where(positive, values, 1.0)
    drawn += np.where(positive, 0.0, values)
    if name in JOINT:
        for place, run_id in enumerate(rows["run_id"]):
            if len(joint := _joint(sums(run_id), name)):
                drawn[:, place] = joint
    sign = 1.0 if rows[f"{axis}_direction"].iloc[0] == "lower" else -1.0
    drawn *= sign
    return drawn


def _joint(sums: Mapping[str, NDArray[np.float64]], name: str) -> np.ndarray:
    """Replicates [draws] of a mean over documents, the same documents for every run."""
    if not sums:
        return np.empty(0)
    weights = statistics.bootstrap_weights(len(sums["tokens"]), REPLICATES)
    count = weights @ np.asarray(sums["tokens"])
    if name == "kld_mean":
        return weights @ np.asarray(sums["kld"]) / count
    if name == "top1_agree":
        return 100 * (weights @ np.asarray(sums["agree"])) / count
    loss = weights @ np.asarray(sums["dnll"]) / count
    return np.exp(loss) if name == "ppl_ratio" else loss


def _same(name: str) -> float:
    return SAME.get(metric(name).group, 0.0)
