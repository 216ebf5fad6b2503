"""The one place where text of unknown origin is made harmless before it is shown."""

from __future__ import annotations

import html
import unicodedata

LIMIT = 20_000
_KEPT = "\n\t"


def plain(value: object, limit: int = LIMIT) -> str:
    """Text without control characters and without marks that turn the direction of writing."""
    text = str(value)[:limit]
    return "".join(
        each for each in text if each in _KEPT or unicodedata.category(each) not in _UNSEEN
    )


def markup(value: object, limit: int = LIMIT) -> str:
    """Text that stays text inside an HTML document, also between quotes."""
    return html.escape(plain(value, limit))


def label(value: object, limit: int = 200) -> str:
    """Text that stays text inside a chart, which reads some tags and formulas."""
    return html.escape(plain(value, limit).replace("$", ""), quote=False)


def cell(value: object) -> str:
    """Text that no spreadsheet takes for a formula."""
    text = plain(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


# Control, format (bidi overrides among them), surrogate and private-use characters.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co"})
