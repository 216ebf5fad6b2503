"""Where a number was taken: processor, memory, GPU, versions and load.

Imports no torch; asks it about a GPU only where it is already loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

INSTRUCTIONS = (
    "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16",
    "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
PACKAGES = ("torch", "triton", "transformers", "safetensors", "numpy", "scipy")


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Return what this machine is, without anything that changes while it runs.

    Args:
        device: the kind that models are computed on, told where it is not the processor.
    """
    processor = _processor()
    return {
        "cpu": processor["model"],
        "cores": usable_cores(),
        "flags": processor["flags"],
        "memory_gib": _memory_gib(),
        "system": platform.system(),
        "machine": platform.machine(),
        "gpus": _gpus(),
    } | ({} if device == "cpu" else {"device": device})


def software() -> dict[str, str]:
    """Return the versions that may change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit(root: Path = Path(__file__).parents[2]) -> str:
    """First ten digits of the commit this copy stands at, or nothing outside a checkout."""
    (head, *_) = [*_lines(str(root / ".git" / "HEAD")), ""]
    name = head.removeprefix("ref: ")
    if name == head:
        return head[:10]
    (found, *_) = [*_lines(str(root / ".git" / name)), ""]
    packed = [line for line in _lines(str(root / ".git" / "packed-refs")) if line.endswith(name)]
    return (found or (packed[0] if packed else ""))[:10]


def hardware_id(fingerprint: dict[str, Any] | None = None, *, device: str = "cpu") -> str:
    """Return 16 hex digits that name this kind of machine, and what of it computes."""
    content = json.dumps(fingerprint or hardware(device), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def host_load() -> dict[str, float]:
    """Return load average over a minute, free memory and stolen CPU seconds, where known."""
    found: dict[str, float] = {}
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 2)
    for line in _lines("/proc/stat")[:1]:
        fields = line.split()
        if len(fields) > 8:
            found["steal_s"] = int(fields[8]) / os.sysconf("SC_CLK_TCK")
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            found["free_bytes"] = float(int(line.split()[1]) * 1024)
    return found


def usable_cores() -> int:
    """Return the cores this process may use: affinity and control group, not what is built in."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    quota = _quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota() -> float | None:
    """Return the cores a control group grants, or None without a limit."""
    for line in _lines("/sys/fs/cgroup/cpu.max")[:1]:
        limit, _, period = line.partition(" ")
        if limit.isdigit() and period.strip().isdigit():
            return int(limit) / int(period)
    old = [_lines(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us")[:1] for name in ("quota", "period")]
    if all(old) and int(old[0][0]) > 0:
        return int(old[0][0]) / int(old[1][0])
    return None


def _processor() -> dict[str, Any]:
    """Return model name and the instruction sets that matter here."""
    name, flags = "", set()
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model") and not name:
            name = value.strip()
        if key.strip() in ("flags", "Features") and not flags:
            flags = set(value.split())
    return {
        "model": name or platform.processor() or platform.machine(),
        "flags": [flag for flag in INSTRUCTIONS if flag in flags],
    }


def _memory_gib() -> float | None:
    """Return physical memory, or what a control group grants of it."""
    try:
        total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return None
    for line in _lines("/sys/fs/cgroup/memory.max")[:1]:
        if line.isdigit():
            total = min(total, float(line))
    return round(total / 2**30, 1)


def _gpus() -> list[dict[str, Any]]:
    """Return the GPUs torch sees, if torch is loaded."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found.append(
            {
                "name": about.name,
                "capability": f"{about.major}.{about.minor}",
                "memory_gib": round(about.total_memory / 2**30, 1),
            }
        )
    return found


def _lines(path: str) -> list[str]:
    """Return the lines of a system file, none where it does not exist."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
