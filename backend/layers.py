"""What each layer of an artefact is held in, and what that takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.models import artefact
from backend.models.view import View


def describe(folder: Path) -> list[dict[str, Any]]:
    """Name, role, format, bits, bytes and bytes by part of every layer, as saved."""
    view = artefact.load(folder, packed=False).view
    found = []
    for site in view.all_sites():
        held = view.held(site)
        size = view.module(site).weight.nbytes if held is None else held.nbytes
        found.append(
            {
                "name": site.name,
                "role": site.role,
                "format": "dense-layer" if held is None else held.key,
                "bits": 16.0 if held is None else held.bits,
                "bytes": size,
                "parts": {"values": size} if held is None else held.parts(),
            }
        )
    return found


def speed(view: View) -> str:
    """`measured` if every held layer multiplies as it lies, else `emulated`."""
    held = [found for found in map(view.held, view.all_sites()) if found is not None]
    return "measured" if all(one.speed == "measured" for one in held) else "emulated"
