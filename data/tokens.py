"""Training tokens: an endless text of the invented world, cut into chapters on disk.

A chapter is an array (steps, tokens per step) of uint16 that is written once and then mapped into
memory. Which tokens it holds follows from its number alone, so a run needs no state to resume.
No text is ever repeated, except prose when a folder of it has been read to its end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

import numpy
from tokenizers import Tokenizer

from data.tokenizer import END_TOKEN
from data.world import documents

Row = list[int]

# Share of the tokens by kind of document; without prose the others keep their proportions.
MIX = {
    "story": 0.26,
    "facts": 0.15,
    "prose": 0.12,
    "recall": 0.11,
    "tracking": 0.08,
    "mixed": 0.08,
    "arithmetic": 0.05,
    "copy": 0.05,
    "order": 0.04,
    "language": 0.04,
    "agreement": 0.02,
}
# Tokens per row by step; one step in eight has long rows, so that every position is learnt.
WIDTHS = (*[256] * 7, 512)
BATCH_TOKENS = 200_000
PROSE_CHARACTERS = 800
PROSE_TOKENS = 330
POOL = 64


@dataclass(frozen=True)
class Library:
    """Where chapters lie, and all that decides what is in them."""

    folder: Path
    tokenizer: Tokenizer
    step_tokens: int
    chapter_steps: int
    prose: tuple[str, ...] = ()

    def rows(self, step: int) -> numpy.ndarray:
        """Return the rows (count, width) of one step; every row begins a document."""
        chapter, index = divmod(step, self.chapter_steps)
        return numpy.asarray(self._chapter(chapter)[index]).reshape(-1, width(step))

    def write(self, chapter: int) -> Path:
        """Write a chapter unless it is there, and return its file."""
        path = self.folder / f"{chapter:05d}.npy"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part.npy")
            numpy.save(unfinished, self._compose(chapter))
            unfinished.replace(path)
        return path

    def _chapter(self, chapter: int) -> numpy.ndarray:
        return numpy.load(self.write(chapter), mmap_mode="r")

    def _compose(self, chapter: int) -> numpy.ndarray:
        packer = Packer(self._encoded(chapter))
        steps = range(chapter * self.chapter_steps, (chapter + 1) * self.chapter_steps)
        tokens = numpy.empty((self.chapter_steps, self.step_tokens), dtype=numpy.uint16)
        for step, row in zip(steps, tokens, strict=True):
            for start in range(0, self.step_tokens, width(step)):
                row[start : start + width(step)] = packer.row(width(step))
        return tokens

    def _encoded(self, chapter: int) -> Iterator[Row]:
        """Yield documents as tokens without end, in the proportions of the mix."""
        for batch in count():
            random = Random(f"chapter {chapter} batch {batch}")
            rows = [
                row
                for kind, share in self._shares().items()
                for row in self._kind(kind, int(share * BATCH_TOKENS), chapter, batch)
            ]
            random.shuffle(rows)
            yield from rows

    def _shares(self) -> dict[str, float]:
        kinds = {kind: share for kind, share in MIX.items() if kind != "prose" or self.prose}
        return {kind: share / sum(kinds.values()) for kind, share in kinds.items()}

    def _kind(self, kind: str, quota: int, chapter: int, batch: int) -> list[Row]:
        """Return documents of one kind, `quota` tokens in all or a little more."""
        if kind == "prose":
            return self._encode(self._prose(quota // PROSE_TOKENS, chapter, batch))
        random = Random(f"chapter {chapter} batch {batch} {kind}")
        rows: list[Row] = []
        used = 0
        while used < quota:
            more = self._encode([documents.KINDS[kind](random) for _ in range(32)])
            rows += more
            used += sum(map(len, more))
        return rows

    def _prose(self, pieces: int, chapter: int, batch: int) -> list[str]:
        """Return the next `pieces` pieces of prose, from the first again after the last."""
        batches_per_chapter = self.step_tokens * self.chapter_steps // BATCH_TOKENS + 2
        start = (chapter * batches_per_chapter + batch) * pieces
        return [self.prose[index % len(self.prose)] for index in range(start, start + pieces)]

    def _encode(self, texts: list[str]) -> list[Row]:
        return [[END_TOKEN, *encoding.ids] for encoding in self.tokenizer.encode_batch(texts)]


class Packer:
    """Fills rows with documents: whole ones where they fit, the last one cut."""

    def __init__(self, rows: Iterator[Row]):
        self.documents = rows
        self.pool: list[Row] = []

    def row(self, size: int) -> Row:
        """Return `size` tokens that begin with the document that has waited longest."""
        self._refill()
        packed = self.pool.pop(0)[:size]
        while len(packed) < size:
            self._refill()
            space = size - len(packed)
            lengths = [len(row) for row in self.pool]
            fitting = [length for length in lengths if length <= space]
            chosen = lengths.index(max(fitting) if fitting else min(lengths))
            packed += self.pool.pop(chosen)[:space]
        return packed

    def _refill(self) -> None:
        while len(self.pool) < POOL:
            self.pool.append(next(self.documents))


def width(step: int) -> int:
    """Return how many tokens a row of this step has."""
    return WIDTHS[step % len(WIDTHS)]


def read_prose(folder: Path) -> tuple[str, ...]:
    """Return the pieces of all `.txt` books in `folder`, in the order in which they are learnt."""
    books = (book.read_text("utf-8") for book in sorted(folder.glob("*.txt")))
    pieces = [piece for book in books for piece in prose_pieces(book)]
    Random("prose").shuffle(pieces)
    return tuple(pieces)


def prose_pieces(text: str) -> Iterator[str]:
    """Yield a book in pieces of whole paragraphs, each over 800 characters."""
    piece: list[str] = []
    for paragraph in text.splitlines():
        if paragraph.strip():
            piece.append(paragraph.strip())
        if sum(map(len, piece)) > PROSE_CHARACTERS:
            yield "\n".join(piece)
            piece = []


def sample(prose: tuple[str, ...], characters: int) -> Iterator[str]:
    """Yield texts in about the proportions of the mix, for a tokenizer to learn from."""
    for kind, share in MIX.items():
        random = Random(f"sample {kind}")
        used = 0
        while used < share * characters and (kind != "prose" or prose):
            text = random.choice(prose) if kind == "prose" else documents.KINDS[kind](random)
            used += len(text)
            yield text
