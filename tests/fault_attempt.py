"""The measuring half of an attempt without its minutes: real files, written by the real writers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from backend.jobs.stream import Emit
from backend.measure.reference import Reference
from backend.models import artefact
from tests.fake_attempt import finish


def judge(spec: dict[str, Any], folder: Path, emit: Emit) -> None:
    """Load the artefact, keep a reference of the dense model, write a result."""
    home = folder.parents[1]
    held = artefact.load(home / "artefacts" / spec["keys"]["artefact"])
    assert held.view.blocks
    kept = home / "cache" / "dense" / "reference.safetensors"
    kept.parent.mkdir(parents=True, exist_ok=True)
    row, ids = torch.zeros(3), torch.zeros(3, dtype=torch.long)
    Reference("key", 5, row, row.clone(), ids, torch.zeros(3, 5, dtype=torch.float16)).save(kept)
    finish(spec, folder, emit)
