"""What each layer of an artefact is held in, and what that takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.formats import Format
from backend.models import artefact
from backend.models.view import View


def describe(folder: Path) -> list[dict[str, Any]]:
    """Name, role, format, bits, bytes and bytes by part of every layer, as saved.

    Embedding and head are told where they are held in a format, once if they are tied.
    """
    view = artefact.load(folder, packed=False).view
    found = []
    for site in view.all_sites():
        held = view.held(site)
        if held is not None:
            found.append(_held(site.name, site.role, held))
            continue
        size = view.module(site).weight.nbytes
        parts = {"values": size}
        row = {"name": site.name, "role": site.role, "format": "dense-layer", "bits": 16.0}
        found.append(row | {"bytes": size, "parts": parts})
    return found + _ends(view)


def speed(view: View) -> str:
    """`measured` if every held layer multiplies as it lies, else `emulated`."""
    held = [found for found in map(view.held, view.all_sites()) if found is not None]
    return "measured" if all(one.speed == "measured" for one in held) else "emulated"


def _ends(view: View) -> list[dict[str, Any]]:
    found, seen = [], set()
    for role, module in (("embedding", view.embedding), ("head", view.head)):
        held = getattr(module, "held", None)
        if held is None or (place := next(held.buffers()).data_ptr()) in seen:
            continue
        seen.add(place)
        found.append(_held(view.name_of(module), role, held))
    return found


def _held(name: str, role: str, held: Format) -> dict[str, Any]:
    about = {"name": name, "role": role, "format": held.key, "bits": held.bits}
    return about | {"bytes": held.nbytes, "parts": held.parts()}
