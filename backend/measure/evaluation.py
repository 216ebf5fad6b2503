"""The held-out tokens that quality is measured on, cut into windows that never cross a document.

Standard library only; a tokenizer comes as two plain callables.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING, NamedTuple

from backend.measure.catalogue import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FEWEST_TOKENS = 8


class Document(NamedTuple):
    """One held-out text; the unit that is resampled."""

    name: str
    kind: str
    text: str


@dataclass(frozen=True)
class Tier:
    """How much text: `tokens` scored in windows of `window` tokens."""

    tokens: int
    window: int


TIERS = {"smoke": Tier(8 * 127, 128), "quick": Tier(64 * 255, 256), "full": Tier(473 * 255, 256)}


@dataclass(frozen=True)
class EvaluationSet:
    """Windows of token ids, each scored token belonging to exactly one.

    Attributes:
        windows: token ids; position 0 of each is context only.
        documents: the document of each window, as an index into `names`.
        names: names of the documents.
        text_bytes: UTF-8 bytes of the scored text.
        first: the first position of each window that is scored.
        prefill: tokens that a model with a cache method takes at once before single steps.
    """

    windows: tuple[tuple[int, ...], ...]
    documents: tuple[int, ...]
    names: tuple[str, ...]
    text_bytes: int
    first: int = 1
    prefill: int = field(default=16)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Index of the first scored token of each window; the last entry is the total."""
        return (0, *accumulate(len(window) - self.first for window in self.windows))

    @property
    def tokens(self) -> int:
        """Number of scored tokens."""
        return self.offsets[-1]

    @cached_property
    def key(self) -> str:
        """Hash of everything that decides the numbers."""
        content = [PROTOCOL, self.windows, self.documents, self.first, self.prefill]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def build(
    documents: Iterable[tuple[str, str, str]],
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str],
    *,
    bos: int | None,
    tier: str = "quick",
    window: int | None = None,
) -> EvaluationSet:
    """Return the evaluation set of a tier: first windows of all documents, then second ones.

    Args:
        documents: (name, kind, text); kinds take turns.
        encode: text to ids without special tokens.
        decode: ids to text.
        bos: id that opens each window; without one, windows overlap by a token of context.
        tier: smoke, quick or full.
        window: tokens per window, if not the tier's.
    """
    plan = TIERS[tier]
    length = window or plan.window
    chosen: list[tuple[int, int, tuple[int, ...]]] = []
    texts = [Document(*each) for each in _in_turns(documents)]
    encoded: dict[int, list[int]] = {}
    total = depth = 0
    open_documents = list(range(len(texts)))
    while open_documents and total < plan.tokens:
        for index in list(open_documents):
            if index not in encoded:
                encoded[index] = list(encode(texts[index].text))
            cut = _window(encoded[index], depth, length, bos)
            if cut is None:
                open_documents.remove(index)
                continue
            chosen.append((index, depth, cut))
            total += len(cut) - 1
            if total >= plan.tokens:
                break
        depth += 1
    if not chosen:
        raise ValueError(f"No document has the {FEWEST_TOKENS} tokens that a window needs.")
    used = sorted({index for index, _, _ in chosen})
    place = {index: number for number, index in enumerate(used)}
    size = 0
    for index in used:
        ids = encoded[index]
        ends = [step for owner, step, _ in chosen if owner == index]
        start = 0 if bos is not None else 1
        stop = min(len(ids), start + (max(ends) + 1) * (length - 1))
        size += len(decode(ids[:stop]).encode()) - len(decode(ids[:start]).encode())
    return EvaluationSet(
        tuple(cut for _, _, cut in chosen),
        tuple(place[index] for index, _, _ in chosen),
        tuple(texts[index].name for index in used),
        size,
    )


def pressure(
    documents: Iterable[tuple[str, str, str]],
    encode: Callable[[str], Sequence[int]],
    *,
    bos: int | None,
    context: int,
    continuation: int = 64,
    count: int = 32,
) -> EvaluationSet:
    """Return windows whose last `continuation` tokens alone are scored, after a prefill.

    A document too short for a window is followed by the next ones; the first names the cluster.

    Args:
        documents: (name, kind, text).
        encode: text to ids.
        bos: id that opens each window, if there is one.
        context: tokens taken at once, on which a cache method compresses.
        continuation: tokens scored after them.
        count: most windows.
    """
    head = [] if bos is None else [bos]
    windows: list[tuple[int, ...]] = []
    names: list[str] = []
    opened, row = "", list(head)
    for document in _in_turns(documents):
        opened = opened or document[0]
        row += encode(document[2])
        if len(row) >= context + continuation:
            windows.append(tuple(row[: context + continuation]))
            names.append(opened)
            opened, row = "", list(head)
        if len(windows) == count:
            break
    if not windows:
        raise ValueError(
            f"The documents together are shorter than {context} + {continuation} tokens."
        )
    return EvaluationSet(
        tuple(windows), tuple(range(len(windows))), tuple(names), 0, context, context
    )


def shared_grams(first: Iterable[str], second: Iterable[str], length: int = 13) -> int:
    """Return how many runs of `length` words two sets of texts share; more than 0 is leakage."""
    return len(_grams(first, length) & _grams(second, length))


def _grams(texts: Iterable[str], length: int) -> set[tuple[str, ...]]:
    """Return every run of `length` words, without case."""
    found: set[tuple[str, ...]] = set()
    for text in texts:
        words = text.lower().split()
        found.update(zip(*(words[start:] for start in range(length)), strict=False))
    return found


def _window(ids: Sequence[int], depth: int, length: int, bos: int | None) -> tuple[int, ...] | None:
    """Return window number `depth` of a document, or None past its end."""
    start, head = depth * (length - 1), () if bos is None else (bos,)
    cut = (*head, *ids[start : start + length - len(head)])
    return cut if len(cut) > FEWEST_TOKENS else None


def _in_turns(documents: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Return the documents with their kinds taking turns, in given order within a kind."""
    kinds: dict[str, list[tuple[str, str, str]]] = {}
    for document in documents:
        kinds.setdefault(document[1], []).append(document)
    turns = zip_longest(*kinds.values())
    return [document for turn in turns for document in turn if document is not None]
