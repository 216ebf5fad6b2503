"""Sizes of blocks for the Triton products: measured ones of a GPU where there are, else by rule.

Nothing is tried out when a product is called: that would need a driver at import, stall the first
call and break the capture of CUDA graphs. `python -m kernels.gpu` measures and writes the files.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "configs"
ROWS = (1, 16, 32, 64, 256, 1024)
"""Upper ends of the ranges of activation rows that share a configuration."""
PROGRAMS = 264  # two for each of an H100's 132 processors
SPLITS = 16
DECODE_ROWS = 64


@dataclass(frozen=True)
class Blocks:
    """What one launch takes: block sizes, parts of the inner dimension, warps and stages."""

    rows: int
    columns: int
    splits: int
    warps: int = 4
    stages: int = 3


def bucket(rows: int) -> int:
    """The upper end of the range that a number of activation rows falls into."""
    return next((end for end in ROWS if rows <= end), ROWS[-1])


def key(operation: str, rows: int, outputs: int, inputs: int, bits: int, group: int) -> str:
    """The name under which the choice for a shape is kept."""
    return f"{operation}/{bucket(rows)}/{outputs}/{inputs}/{bits}/{group}"


def pick(
    operation: str,
    device: torch.device,
    rows: int,
    outputs: int,
    inputs: int,
    *,
    bits: int = 16,
    group: int = 128,
) -> Blocks:
    """Blocks for activation rows [rows, inputs] and a weight [outputs, inputs]."""
    name = gpu_name(torch.cuda.get_device_name(device)) if device.type == "cuda" else ""
    found = measured(name).get(key(operation, rows, outputs, inputs, bits, group))
    return found or by_rule(rows, outputs, inputs)


def by_rule(rows: int, outputs: int, inputs: int) -> Blocks:
    """Enough programs to fill a large GPU, each with at least 512 inputs to add up."""
    height = min(64, max(16, 1 << (rows - 1).bit_length()))
    width = 64
    programs = -(-rows // height) * -(-outputs // width)
    splits = 1
    if rows <= DECODE_ROWS:
        while splits < SPLITS and programs * splits < PROGRAMS and inputs >= 1024 * splits:
            splits *= 2
    return Blocks(height, width, splits)


@functools.cache
def measured(name: str) -> dict[str, Blocks]:
    """Choices measured on the GPU of this name, by `key`; none if it was never measured."""
    path = FOLDER / f"{name}.json"
    if not name or not path.is_file():
        return {}
    return {entry: Blocks(**value) for entry, value in json.loads(path.read_text()).items()}


def write(name: str, choices: dict[str, Blocks], folder: Path = FOLDER) -> Path:
    """Keep measured choices for the GPU of this name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    text = json.dumps({entry: asdict(choices[entry]) for entry in sorted(choices)}, indent=1)
    path.write_text(text + "\n")
    return path


def gpu_name(name: str) -> str:
    """A GPU's name as a file is called: `NVIDIA H100 80GB HBM3` is `nvidia-h100-80gb-hbm3`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
