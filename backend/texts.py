"""Texts that calibrate and judge: those of the embedded world, or a person's own files.

A file is plain text, cut at blank lines, or `.jsonl` with a field `text` a line. Calibration and
held-out text that share a run of 13 words are refused. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from backend.errors import DataError
from data import texts

Document = tuple[str, str, str]
PIECE = 1_000  # characters that a document of a plain file has at least
FEWEST = 8  # documents, below which no interval can be given


@dataclass(frozen=True)
class Texts:
    """Which texts are used; None stands for those of the embedded world."""

    calibration_file: Path | None = None
    heldout_file: Path | None = None

    @cached_property
    def calibration(self) -> list[Document]:
        """What methods may look at: (name, kind, text)."""
        if self.calibration_file is not None:
            return read(self.calibration_file)
        return [(one.id, one.kind, one.text) for one in texts.calibration()]

    @cached_property
    def heldout(self) -> list[Document]:
        """What every model is judged by: (name, kind, text)."""
        if self.heldout_file is not None:
            return read(self.heldout_file)
        return [(one.id, one.kind, one.text) for one in texts.heldout()]

    def check(self) -> None:
        """Refuse text that judges what was calibrated on it.

        Raises:
            DataError: the two share a run of words, or one is empty.
        """
        if self.calibration_file is None and self.heldout_file is None:
            return  # a test proves it of the shipped ones
        shared = texts.overlap(
            [text for _, _, text in self.heldout], [text for _, _, text in self.calibration]
        )
        if shared:
            name = self.heldout[min(shared)][0]
            raise DataError(
                f"{len(shared)} of {len(self.heldout)} held-out documents share a run of "
                f"{texts.SHARED_WORDS} words with the calibration text, the first being {name}; "
                "a model would be judged by what it was fitted to. Take other text."
            )

    @cached_property
    def key(self) -> str:
        """SHA-256 of everything that is read."""
        total = hashlib.sha256()
        for name, _, text in (*self.calibration, ("", "", ""), *self.heldout):
            total.update(f"{name}\0{text}\0".encode())
        return total.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The files' names."""
        files = {"calibration": self.calibration_file, "heldout": self.heldout_file}
        return {name: None if path is None else str(path) for name, path in files.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Undo `to_json`."""
        files = [data.get(name) for name in ("calibration", "heldout")]
        return cls(*(None if name is None else Path(name) for name in files))


def read(path: Path) -> list[Document]:
    """Documents of a file: (name, kind, text).

    Raises:
        DataError: it cannot be read, or holds no text.
    """
    try:
        whole = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error
    pieces = _lines(whole, path) if path.suffix == ".jsonl" else _pieces(whole)
    found = [(f"{path.stem}-{index}", "text", text) for index, text in enumerate(pieces)]
    if len(found) < FEWEST:
        raise DataError(
            f"{path} holds {len(found)} documents and at least {FEWEST} are needed: plain text of "
            f"{FEWEST * PIECE:,} characters with blank lines, or .jsonl with a field `text`."
        )
    return found


def _pieces(whole: str) -> list[str]:
    pieces: list[str] = []
    current = ""
    for paragraph in filter(None, (part.strip() for part in whole.split("\n\n"))):
        current = f"{current}\n\n{paragraph}" if current else paragraph
        if len(current) >= PIECE:
            pieces.append(current)
            current = ""
    return pieces


def _lines(whole: str, path: Path) -> list[str]:
    found = []
    for number, line in enumerate(filter(str.strip, whole.splitlines()), 1):
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"Line {number} of {path} is no JSON with a field `text`.") from None
        if isinstance(text, str) and text.strip():
            found.append(text)
    return found
