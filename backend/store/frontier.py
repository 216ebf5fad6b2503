"""The Pareto frontier between two readings, found by the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.store.database import Database
from backend.store.results import EVERYTHING, Filter

if TYPE_CHECKING:
    import pandas as pd


def frontier(
    database: Database,
    x: str,
    y: str,
    chosen: Filter = EVERYTHING,
    *,
    by_hardware: bool = True,
) -> pd.DataFrame:
    """Every run that has both readings, with `on_frontier` telling which none dominates.

    A run dominates another when it is at least as good in both readings and better in one, so
    runs that tie exactly stand on the frontier together. Only runs of one model and protocol
    compete; with `by_hardware` only those of one machine, as speed and memory demand. A broken
    run is listed and never on the frontier, and neither is any where a reading has no better
    side. Runs without a finite value of both are left out.

    Columns: run_id, model, recipe, family, status, hardware_id, protocol, created, then value,
    low, high, unit, direction and kind of each axis as `x`, `x_low` ... `y_kind`, on_frontier.
    Rows are ordered by model, protocol, hardware, x and y.
    """
    parameters = chosen.bound() | {"x": x, "y": y, "by_hardware": by_hardware}
    with database.reading() as cursor:
        return cursor.execute(QUERY, parameters).df()


def axes(database: Database) -> pd.DataFrame:
    """The readings that can be an axis: name, unit, direction, and how many runs have each."""
    with database.reading() as cursor:
        return cursor.execute(
            "SELECT name, min(unit) AS unit, min(direction) AS direction, count(*) AS runs "
            "FROM readings WHERE isfinite(value) GROUP BY name ORDER BY runs DESC, name"
        ).df()


# Costs are readings turned so that less is better. A point stands when nothing as cheap in x has
# a lower y, and everything strictly cheaper in x has a higher y. Points that may not compete
# form a partition of their own, so the windows never see them.
QUERY = """
WITH points AS (
    SELECT run_id, model, recipe, family, status, hardware_id, protocol, created,
           horizontal.value AS x, horizontal.low AS x_low, horizontal.high AS x_high,
           horizontal.unit AS x_unit, horizontal.direction AS x_direction,
           horizontal.kind AS x_kind,
           vertical.value AS y, vertical.low AS y_low, vertical.high AS y_high,
           vertical.unit AS y_unit, vertical.direction AS y_direction,
           vertical.kind AS y_kind,
           CASE horizontal.direction WHEN 'higher' THEN 0 - x ELSE 0 + x END AS x_cost,
           CASE vertical.direction WHEN 'higher' THEN 0 - y ELSE 0 + y END AS y_cost,
           status = 'done' AND x_direction <> 'none' AND y_direction <> 'none' AS competes,
           CASE WHEN $by_hardware THEN hardware_id ELSE '' END AS machine
    FROM results
    JOIN readings AS horizontal USING (run_id)
    JOIN readings AS vertical USING (run_id)
    WHERE horizontal.name = $x AND vertical.name = $y
      AND isfinite(horizontal.value) AND isfinite(vertical.value)
      AND (len($models::VARCHAR[]) = 0 OR list_contains($models::VARCHAR[], model))
      AND (len($protocols::VARCHAR[]) = 0 OR list_contains($protocols::VARCHAR[], protocol))
      AND (len($hardware::VARCHAR[]) = 0 OR list_contains($hardware::VARCHAR[], hardware_id))
      AND (len($families::VARCHAR[]) = 0 OR list_contains($families::VARCHAR[], family))
)
SELECT * EXCLUDE (x_cost, y_cost, competes, machine),
       competes
       AND y_cost = min(y_cost) OVER (
           PARTITION BY competes, model, protocol, machine, x_direction, y_direction, x_cost)
       AND y_cost < coalesce(min(y_cost) OVER (
           PARTITION BY competes, model, protocol, machine, x_direction, y_direction
           ORDER BY x_cost
           RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE GROUP
       ), 'infinity'::DOUBLE) AS on_frontier
FROM points
ORDER BY model, protocol, hardware_id, x, y, run_id
"""
