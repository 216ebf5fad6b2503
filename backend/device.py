"""What `PARETOSCOPE_DEVICE` wishes for: where models are computed; imports no torch.

`auto` takes a GPU where torch can use one and the model fits with what it needs beside it, else
the processor; `cpu`, `cuda` and `cuda:1` ask for one thing. `backend.models.place` decides.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from backend.errors import SettingError

VARIABLE = "PARETOSCOPE_DEVICE"
FIRST = "cuda"
"""The first GPU, however it is asked for."""
SIGNS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What stands where a driver for a GPU is at hand; the last is Windows seen from within Linux."""


def wished() -> str:
    """The device that is asked for: auto, cpu, cuda or cuda with a number.

    Raises:
        SettingError: anything else.
    """
    found = os.environ.get(VARIABLE, "").strip().lower() or "auto"
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", found):
        raise SettingError(f"{VARIABLE} is auto, cpu, cuda or cuda:0 and so on, not {found!r}.")
    return FIRST if re.fullmatch(r"cuda:0+", found) else found  # one device, one name, one key


def promised() -> str:
    """What a job carries: `cpu` where no GPU is to be seen, so that a machine without has its own.

    Raises:
        SettingError: as of `wished`.
    """
    found = wished()
    return found if found != "auto" or _seen() else "cpu"


def _seen() -> bool:
    """Whether a GPU may be here; one that the Hub lends shows itself in a job alone."""
    lent = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
    return lent or os.name == "nt" or any(Path(sign).exists() for sign in SIGNS)
