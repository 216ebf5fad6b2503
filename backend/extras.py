"""Readings beyond the embedded texts that a person may ask for; imports no torch.

WikiText-2 comes from a file of one's own, because nothing is downloaded unasked; tasks of
lm-evaluation-harness come through that package, where it is installed, and fetch their questions.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from backend.errors import DataError


@dataclass(frozen=True)
class Extras:
    """What else is asked.

    Attributes:
        wikitext: the raw test part of WikiText-2, `wiki.test.raw`; None for none.
        tasks: names of tasks of lm-evaluation-harness.
    """

    wikitext: Path | None = None
    tasks: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what cannot be asked.

        Raises:
            DataError: a file cannot be read, or a package is missing.
        """
        if self.wikitext is not None:
            self.text()
        if self.tasks and importlib.util.find_spec("lm_eval") is None:
            raise DataError(
                "Tasks come from lm-evaluation-harness, which is not installed; "
                "`pip install lm-eval` adds it, or leave --tasks out."
            )

    def text(self) -> str:
        """The raw text as papers read it: its rows, empty ones too, joined by two line ends.

        Raises:
            DataError: it cannot be read.
        """
        if self.wikitext is None:
            raise DataError("No file of WikiText-2 was given; --wikitext names one.")
        try:
            whole = self.wikitext.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.wikitext} cannot be read as text: {error}") from error
        rows = whole.removesuffix("\n").split("\n")
        return "\n\n".join(f"{row}\n" if row.strip() else "" for row in rows)

    @cached_property
    def key(self) -> str:
        """SHA-256 of all that is asked; empty for nothing."""
        if self == NO_EXTRAS:
            return ""
        text = self.text() if self.wikitext is not None else ""
        return hashlib.sha256("\0".join([*self.tasks, text]).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The file's name and the tasks."""
        file = None if self.wikitext is None else str(self.wikitext)
        return {"wikitext": file, "tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Undo `to_json`."""
        file = data.get("wikitext")
        return cls(None if file is None else Path(file), tuple(data.get("tasks", ())))


NO_EXTRAS = Extras()
