"""Open a home folder's results in one go: the database, what it indexes, shared views and votes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backend.store.database import Database
from backend.store.frontier import frontier
from backend.store.remembered import Remembered
from backend.store.results import EVERYTHING, Filter, Results
from backend.store.shares import Shares
from backend.store.votes import Votes

if TYPE_CHECKING:
    import pandas as pd


class Store:
    """Database, results, shares and votes of one home folder; a context manager.

    Files that are not indexed yet are at once, so results that came with a copy of the folder, and
    those behind a damaged database or log, are there from the start.
    """

    def __init__(self, home: Path):
        self.home = home
        self.database = Database(home)
        self.results = Results(self.database)
        self.shares = Shares(self.database)
        self.votes = Votes(self.database)
        self._fronts = Remembered(self.results.version, partial(frontier, self.database))
        self.results.catch_up()

    def frontier(self, x: str, y: str, chosen: Filter = EVERYTHING) -> pd.DataFrame:
        """What `frontier.frontier` finds, asked of the database once while no run comes."""
        return self._fronts(x, y, chosen).copy()

    @property
    def notice(self) -> str:
        """A sentence for the page when something had to be repaired, else empty."""
        return self.database.notice

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the home folder go."""
        self.database.close()
