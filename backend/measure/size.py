"""Bytes that exist: files, storages, peaks and caches. Nothing here comes from a formula."""

from __future__ import annotations

import dataclasses
import resource
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from backend.measure.reading import Reading, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from backend.decoding.model import LanguageModel


@dataclass(frozen=True)
class Resident:
    """Bytes in memory, each storage once.

    Attributes:
        total: sum over unique storages.
        parts: the same by part; a shared storage belongs to the part that names it first.
    """

    total: int
    parts: dict[str, int] = field(default_factory=dict)


@dataclass
class Peak:
    """Filled when the watched phase ends; None where the system gives no such number."""

    bytes: int | None = None
    note: str = ""


def folder_bytes(folder: Path, names: Iterable[str] | None = None) -> int:
    """Return the size of all files below `folder`, or of the named ones."""
    files = folder.rglob("*") if names is None else (folder / name for name in names)
    return sum(path.stat().st_size for path in files if path.is_file())


def tensors(root: object, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor that `root` keeps alive, with a dotted name.

    Looks into modules (parameters, buffers and plain attributes), dataclasses, dictionaries,
    lists and tuples: packed objects count even if nobody registered them.
    """
    seen: set[int] = set()
    stack: list[tuple[str, object]] = [(name, root)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, torch.Tensor):
            yield path, value
            continue
        inside = _members(value)
        if inside is None or id(value) in seen:
            continue
        seen.add(id(value))
        stack += [(f"{path}.{key}" if path else str(key), each) for key, each in inside][::-1]


def resident(root: object, part: Callable[[str], str] = lambda _: "all") -> Resident:
    """Return the bytes of the unique storages below `root`.

    Args:
        root: a module or anything `tensors` looks into.
        part: maps a tensor's name to the part it is counted under.
    """
    counted: set[tuple[torch.device, int]] = set()
    parts: dict[str, int] = {}
    for name, tensor in tensors(root):
        for piece in _plain(tensor):
            storage = piece.untyped_storage()
            place = (piece.device, storage.data_ptr())
            if storage.data_ptr() == 0 or place in counted:
                continue
            counted.add(place)
            label = part(name)
            parts[label] = parts.get(label, 0) + storage.nbytes()
    return Resident(sum(parts.values()), parts)


def memory_kind(targeted: int, dense: int) -> str:
    """Return `real` if the targeted matrices take fewer bytes than dense, else `simulated`."""
    return "real" if targeted < dense else "simulated"


def size_readings(
    model: object,
    folder: Path | None,
    reference_parameters: int,
    *,
    linear_parameters: int = 0,
    is_linear: Callable[[str], bool] | None = None,
) -> list[Reading]:
    """Return bytes on disk, resident bytes and bits per original weight.

    Args:
        model: the loaded artefact, a module.
        folder: its files.
        reference_parameters: parameters of the dense checkpoint, tied tensors once.
        linear_parameters: how many of those the compressed matrices had.
        is_linear: whether a tensor of that name belongs to a compressed matrix.
    """
    held = resident(model, lambda name: str(bool(is_linear and is_linear(name))))
    found = take("resident_bytes", held.total, kind="counted")
    found += take("bpw_eff", 8 * held.total / reference_parameters, kind="counted")
    if is_linear is not None and linear_parameters:
        bits = 8 * held.parts.get("True", 0) / linear_parameters
        found += take("bpw_linear", bits, kind="counted")
    if folder is not None:
        count = sum(path.is_file() for path in folder.rglob("*"))
        found += take("disk_bytes", folder_bytes(folder), kind="counted", samples=count)
    return found


def cache_readings(model: LanguageModel, length: int = 64, token: int = 0) -> list[Reading]:
    """Return bytes of cache per token, the slope between `length` and twice that, and the rest.

    A negative intercept (a cache that drops tokens) is told as 0 with a note.
    """
    sizes = []
    for tokens in (length, 2 * length):
        session = model.session(1, tokens)
        with torch.inference_mode():
            session.read(torch.full((1, tokens), token, device=model.device))
        sizes.append(session.cache_bytes())
    slope = (sizes[1] - sizes[0]) / length
    fixed = sizes[0] - slope * length
    note = f"{sizes[0]} B at {length} tokens, {sizes[1]} B at {2 * length}"
    return [
        *take("kv_bytes_per_token", slope, samples=2, note=note),
        *take("kv_fixed_bytes", max(fixed, 0.0), samples=2, note=note if fixed < 0 else ""),
    ]


@contextmanager
def watch_peak(device: torch.device | None = None) -> Iterator[Peak]:
    """Measure the highest memory above the start while the context is open.

    On a GPU: allocated bytes. On Linux: the kernel's high-water mark, set back at the start, so
    the process should do nothing else. Elsewhere the mark cannot be set back and a peak below an
    earlier one is not seen; then there is no number.
    """
    peak = Peak()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        torch.cuda.synchronize(device)
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        peak.note = f"reserved {torch.cuda.max_memory_reserved(device)} B"
        return
    before = _reset_high_water()
    earlier = None if before is not None else _highest_ever()
    yield peak
    if before is not None:
        after = _high_water()
        peak.bytes = None if after is None else max(0, after - before)
    elif earlier is not None and _highest_ever() > earlier:
        peak.bytes = _highest_ever() - earlier
        peak.note = "above the highest earlier mark of the process"


def _members(value: object) -> Iterable[tuple[object, object]] | None:
    """Return the named parts of a container, or None for anything else."""
    if isinstance(value, torch.nn.Module):
        own: Mapping[str, object] = vars(value)
        registered = [own[kind] for kind in ("_parameters", "_buffers", "_modules")]
        machinery = vars(torch.nn.Module())
        plain = {key: each for key, each in own.items() if key not in machinery}
        return [pair for group in (*registered, plain) for pair in group.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return list(vars(value).items()) if hasattr(value, "__dict__") else _slots(value)
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    return None


def _slots(value: object) -> list[tuple[object, object]]:
    """Return the fields of a dataclass without a dictionary."""
    return [(each.name, getattr(value, each.name)) for each in dataclasses.fields(value)]


def _plain(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensors that hold the data: for sparse ones, indices and values."""
    if tensor.is_meta:
        return []
    if tensor.layout is torch.strided:
        return [tensor]
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    rows = tensor.crow_indices() if hasattr(tensor, "crow_indices") else None
    return [rows, tensor.col_indices(), tensor.values()] if rows is not None else []


def _reset_high_water() -> int | None:
    """Set the high-water mark back to the present and return it, or None without /proc."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _high_water()


def _high_water() -> int | None:
    """Return the high-water mark of resident memory in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _highest_ever() -> int:
    """Return the highest resident memory of the process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
