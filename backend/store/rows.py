"""The rows of a result in the three tables that index it; knows nothing of its file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

_AS_JSON = "model", "stages", "budget", "layers", "notes", "artefact", "manifest"


def insert_rows(cursor: duckdb.DuckDBPyConnection, document: Mapping[str, Any]) -> None:
    """Enter a checked document that has no rows yet."""
    _insert_result(cursor, document)
    _insert_readings(cursor, document["run_id"], document["readings"])
    _insert_generations(cursor, document["run_id"], document["generations"])


def delete_rows(cursor: duckdb.DuckDBPyConnection, run_ids: Sequence[str]) -> None:
    """Take out all rows of these runs."""
    named = [list(run_ids)]
    cursor.execute("DELETE FROM generations WHERE list_contains(?::VARCHAR[], run_id)", named)
    cursor.execute("DELETE FROM readings WHERE list_contains(?::VARCHAR[], run_id)", named)
    cursor.execute("DELETE FROM results WHERE list_contains(?::VARCHAR[], run_id)", named)


def _insert_result(cursor: duckdb.DuckDBPyConnection, document: Mapping[str, Any]) -> None:
    cursor.execute(
        "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            document["run_id"],
            document["model"]["name"],
            document["recipe"],
            document["family"],
            document["status"],
            document["manifest"]["hardware_id"],
            document["protocol"],
            document["created"],
            float(document["seconds"]),
            *(json.dumps(document[name]) for name in _AS_JSON),
        ],
    )


def _insert_readings(
    cursor: duckdb.DuckDBPyConnection, run_id: str, readings: Sequence[Mapping[str, Any]]
) -> None:
    # Lists, unfolded by the database: one statement for any number of rows.
    columns = ("name", "value", "low", "high", "unit", "direction", "kind")
    cursor.execute(
        "INSERT INTO readings SELECT ?, unnest(?::VARCHAR[]), unnest(?::DOUBLE[]), "
        "unnest(?::DOUBLE[]), unnest(?::DOUBLE[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), "
        "unnest(?::VARCHAR[]), unnest(?::JSON[]), unnest(?::VARCHAR[])",
        [
            run_id,
            *([reading.get(column) for reading in readings] for column in columns),
            [json.dumps(reading.get("samples")) for reading in readings],
            [reading.get("note", "") for reading in readings],
        ],
    )


def _insert_generations(
    cursor: duckdb.DuckDBPyConnection, run_id: str, generations: Sequence[Mapping[str, Any]]
) -> None:
    cursor.execute(
        "INSERT INTO generations SELECT ?, unnest(?::INTEGER[]), unnest(?::VARCHAR[]), "
        "unnest(?::VARCHAR[]), unnest(?::JSON[]), unnest(?::INTEGER[]), unnest(?::DOUBLE[]), "
        "unnest(?::JSON[])",
        [
            run_id,
            list(range(len(generations))),
            [one["prompt"] for one in generations],
            [one["text"] for one in generations],
            [json.dumps(one["tokens"]) for one in generations],
            [one.get("first_divergence") for one in generations],
            [one.get("gap") for one in generations],
            [json.dumps(one) for one in generations],
        ],
    )
