"""The catalogue: every method by its key, read from the folders; runs nothing, loads no torch."""

from __future__ import annotations

import difflib
import functools
import importlib
from pathlib import Path
from typing import Any

from backend import settings
from backend.errors import UnknownNameError
from backend.methods.base import Method


@functools.cache
def catalogue() -> dict[str, type[Method]]:
    """Every method's class by its key, in the order of family and key."""
    found = {}
    folder = Path(__file__).parent
    for path in sorted(folder.glob("*/[a-z]*.py")):
        module = importlib.import_module(f"backend.methods.{path.parent.name}.{path.stem}")
        found |= {one.key(): one for one in settings.concrete(module, Method)}
    return found


def find(key: str) -> type[Method]:
    """The class of a method by its key.

    Raises:
        UnknownNameError: no such method; names the nearest.
    """
    methods = catalogue()
    if key not in methods:
        near = difflib.get_close_matches(key, methods, n=3, cutoff=0.4)
        hint = f"Did you mean {', '.join(near)}?" if near else f"{len(methods)} others are known."
        raise UnknownNameError(f"No method is called {key!r}. {hint}")
    return methods[key]


def describe(cls: type[Method]) -> dict[str, Any]:
    """All that the page, the command line and the documents say about a method."""
    return settings.describe(cls) | {
        "family": cls.family(),
        "stage": cls.stage.name.lower(),
        "needs": [need.name.lower() for need in cls.needs],
        "accepts": list(cls.accepts),
        "yields": list(cls.yields),
    }
