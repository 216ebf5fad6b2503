"""Answers to the blind question which of two texts a compressed model wrote."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from backend.store.database import Database

if TYPE_CHECKING:
    import pandas as pd

ANSWERS = ("right", "wrong", "unsure")


class Votes:
    """Keep votes, one of each voter on each text, and count them."""

    def __init__(self, database: Database):
        self._database = database

    def cast(self, run_id: str, prompt: str, answer: str, voter: str) -> bool:
        """Keep a vote; False where this voter judged this text before, and the first stands.

        Args:
            run_id: whose text it was.
            prompt: which text.
            answer: one of `ANSWERS`.
            voter: a name of nobody's, the same each time.
        """
        with self._database.writing() as cursor:
            known = cursor.execute(
                "SELECT 1 FROM votes WHERE run_id = ? AND prompt = ? AND voter = ?",
                [run_id, prompt, voter],
            ).fetchone()
            if known:
                return False
            cursor.execute(
                "INSERT INTO votes VALUES (?, ?, ?, ?, ?)",
                [run_id, prompt, voter, answer, time.time()],
            )
        return True

    def judged(self, run_id: str, voter: str) -> set[str]:
        """Prompts on which this voter judged this run."""
        with self._database.reading() as cursor:
            found = cursor.execute(
                "SELECT prompt FROM votes WHERE run_id = ? AND voter = ?", [run_id, voter]
            ).fetchall()
        return {prompt for (prompt,) in found}

    def counts(self) -> pd.DataFrame:
        """Rows run_id, right, wrong, unsure of every run that was judged."""
        with self._database.reading() as cursor:
            return cursor.execute(
                "SELECT run_id, count(*) FILTER (answer = 'right') AS right, "
                "count(*) FILTER (answer = 'wrong') AS wrong, "
                "count(*) FILTER (answer = 'unsure') AS unsure "
                "FROM votes GROUP BY run_id ORDER BY run_id"
            ).df()
