"""Where two texts part: spans of one beside another, marked from the first difference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

_WORD = re.compile(r"\s*\S+\s*?|\s+")


@dataclass(frozen=True)
class Span:
    """A piece of text; `kind` is same, first (the first difference) or changed."""

    text: str
    kind: str


def spans(reference: str, text: str) -> list[Span]:
    """`text` in pieces, each told by how it stands to `reference`.

    Words are compared whole, and joined again they are `text` to the letter. A text that stops
    early has an empty first difference at its end.
    """
    expected, got = _WORD.findall(reference), _WORD.findall(text)
    found: list[Span] = []
    parted = False
    for kind, low, high in _blocks(expected, got):
        piece = "".join(got[low:high])
        if kind == "equal":
            found.append(Span(piece, "same"))
        elif not parted:
            parted = True
            first = got[low] if low < high else ""
            found.append(Span(first, "first"))
            rest = "".join(got[low + 1 : high])
            found += [Span(rest, "changed")] if rest else []
        elif piece:
            found.append(Span(piece, "changed"))
    return found


def _blocks(expected: list[str], got: list[str]) -> list[tuple[str, int, int]]:
    # The common beginning first: a matcher may prefer a longer match further on.
    shared = 0
    while shared < min(len(expected), len(got)) and expected[shared] == got[shared]:
        shared += 1
    matcher = SequenceMatcher(None, expected[shared:], got[shared:], autojunk=False)
    later = [(kind, low + shared, high + shared) for kind, _, _, low, high in matcher.get_opcodes()]
    return ([("equal", 0, shared)] if shared else []) + later
