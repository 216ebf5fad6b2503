"""Short names of views: a slug stands for a query, and opens the same view wherever it is kept."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from backend.store.database import Database
from backend.store.errors import StoreError

SIZE_LIMIT = 16 * 2**10
SLUG = re.compile(r"[0-9a-f]{16}")


class Shares:
    """Keep views and find them again."""

    def __init__(self, database: Database):
        self._database = database

    def keep(self, query: Mapping[str, Any]) -> str:
        """Slug of the query: 16 hexadecimal digits of its content, the same on every machine.

        Raises:
            StoreError: The query is no JSON object of finite numbers, or exceeds 16 KiB.
        """
        try:
            text = json.dumps(query, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise StoreError(f"This view cannot be shared: {error}.") from None
        if len(text) > SIZE_LIMIT:
            raise StoreError(f"A shared view takes at most {SIZE_LIMIT:,} characters.")
        slug = hashlib.sha256(text.encode()).hexdigest()[:16]
        with self._database.writing() as cursor:
            cursor.execute(
                "INSERT INTO shares VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [slug, text, time.time()],
            )
        return slug

    def find(self, slug: str) -> dict[str, Any] | None:
        """The query behind a slug, or None; never starts any work."""
        if not SLUG.fullmatch(slug):
            return None
        with self._database.reading() as cursor:
            row = cursor.execute("SELECT query FROM shares WHERE slug = ?", [slug]).fetchone()
        return json.loads(row[0]) if row else None

    def all(self) -> list[dict[str, Any]]:
        """Every query kept, oldest first."""
        with self._database.reading() as cursor:
            rows = cursor.execute("SELECT query FROM shares ORDER BY created, slug").fetchall()
        return [json.loads(query) for (query,) in rows]
