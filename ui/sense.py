"""What a divergence comes to, told by the runs of a chart that were measured nearest to it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from backend.service import Service
from ui import numbers

DISTANCE = "kld_mean"
VALUES = (0.01, 0.1, 1.0)  # nats a token
NEAREST = 5  # runs that tell of a value
REACH = 2.0  # times as much or less as a run may lie away


def sense(service: Service, frame: pd.DataFrame, x: str, y: str) -> str:
    """One sentence of agreement and perplexity at some divergences; empty without that axis.

    Args:
        service: whom to ask.
        frame: the chart's runs, as `Service.frontier` gives them.
        x: metric across.
        y: metric up.
    """
    if DISTANCE not in (x, y):
        return ""
    side = frame["y" if y == DISTANCE else "x"]
    known = frame.assign(distance=side)[(frame["status"] == "done") & (side > 0)]
    near = {value: _nearest(known, value) for value in VALUES}
    near = {value: ids for value, ids in near.items() if ids}
    if not near:
        return ""
    asked = sorted({run_id for ids in near.values() for run_id in ids})
    told = service.store.results.readings(asked)
    wide = told.pivot_table(index="run_id", columns="name", values="value")
    parts = [(value, _told(wide, ids)) for value, ids in near.items()]
    parts = [(value, *told) for value, told in parts if told]
    if not parts:
        return ""
    (value, same, times), *more = parts
    rest = "".join(f"; {value:g}, at {same} and {times}" for value, same, times in more)
    return (
        f"What a divergence means, by the runs nearest on this chart: {value:g} nats leave the "
        f"first choice the same at {same} of tokens and perplexity at {times}{rest}."
    )


def _nearest(known: pd.DataFrame, value: float) -> list[str]:
    """Ids of the runs nearest to a divergence, by how many times it theirs is."""
    away = np.abs(np.log(known["distance"] / value)).sort_values(kind="stable")
    return list(known.loc[away[away <= np.log(REACH)].index[:NEAREST], "run_id"])


def _told(wide: pd.DataFrame, ids: list[str]) -> tuple[str, ...]:
    """Over which share of tokens the first choice is the same, and the median perplexity."""
    rows = wide.reindex(index=ids, columns=["top1_agree", "ppl_ratio"]).dropna()
    if rows.empty:
        return ()
    low, high = rows["top1_agree"].min(), rows["top1_agree"].max()
    same = numbers.quantity(low, "%") if low == high else numbers.interval(low, high, "%")
    return same, numbers.quantity(float(rows["ppl_ratio"].median()), "×")
