"""Allocators, which divide a budget over layers: the catalogue, read without loading torch."""

from __future__ import annotations

import difflib
import functools
import importlib
from pathlib import Path

from backend.errors import UnknownNameError
from backend.search.base import Allocator
from backend.settings import concrete

UNIFORM = "uniform"


@functools.cache
def catalogue() -> dict[str, type[Allocator]]:
    """Every allocator's class by its key; `uniform`, all layers alike, needs none."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        module = importlib.import_module(f"backend.search.{path.stem}")
        found |= {one.key(): one for one in concrete(module, Allocator)}
    return found


def find(key: str) -> type[Allocator]:
    """The class of an allocator by its key.

    Raises:
        UnknownNameError: no such allocator; names the nearest.
    """
    found = catalogue()
    if key not in found:
        near = difflib.get_close_matches(key, found, n=2, cutoff=0.4) or [UNIFORM, *found]
        raise UnknownNameError(f"No allocator is called {key!r}; there are {', '.join(near)}.")
    return found[key]
