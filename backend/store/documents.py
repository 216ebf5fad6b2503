"""The result document: what it must hold, and how its file is read and written whole.

Only the standard library, so that a worker may write its result without meeting a database.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from backend.faults import fault_point
from backend.store.errors import ResultRefusedError

SCHEMA = 1
SIZE_LIMIT = 64 * 2**20
RUN_ID = re.compile(r"[0-9a-f]{16}")
STATUSES = ("done", "broken")
DIRECTIONS = ("lower", "higher", "none")
KINDS = ("measured", "counted", "estimated")

_NUMBER = (int, float)
_NULLABLE_NUMBER = (int, float, type(None))
_DOCUMENT = {
    "schema": int,
    "run_id": str,
    "status": str,
    "created": str,
    "protocol": str,
    "model": dict,
    "recipe": str,
    "stages": list,
    "family": str,
    "budget": dict,
    "seconds": _NUMBER,
    "readings": list,
    "generations": list,
    "layers": list,
    "notes": list,
    "artefact": dict,
    "manifest": dict,
}
_READING = {
    "name": str,
    "value": _NULLABLE_NUMBER,
    "unit": str,
    "direction": str,
    "kind": str,
}
_ENTRIES = {
    "stages": {"method": str, "family": str, "settings": dict},
    "readings": _READING,
    "generations": {"prompt": str, "text": str, "tokens": list},
    "layers": {"name": str, "format": str, "bits": _NUMBER, "bytes": int},
}


def write_document(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write a result durably as `folder/<run_id>.json` and return the path.

    A file appears whole or not at all. One that is already there and sound stays as it is:
    results never change.

    Raises:
        ResultRefusedError: The document breaks its contract.
    """
    check(document)
    write_checked(folder, [document])
    return _path(folder, document)


def write_checked(
    folder: Path, documents: Sequence[Mapping[str, Any]], *, renew: bool = False
) -> None:
    """Write documents that `check` has passed as `write_document` does, the disk asked once.

    Each is written before any is waited for: a disk takes many files in the time of one. Several
    processes and threads may write the same run at once. To `renew` is to take the place of what
    is there, for results that came with the program alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[Path, Mapping[str, Any]] = {}
    try:
        for document in documents:
            path = _path(folder, document)
            if path not in written and (renew or not _sound(path)):
                _sweep(path)
                written[path] = document
                _write(_partial(path), document)
        for path, document in written.items():
            _appear(path, document, renew)
    finally:
        for path in written:
            _partial(path).unlink(missing_ok=True)
    if written and os.name != "nt":  # Windows cannot open a folder; a rename is durable there
        _sync(folder, os.O_RDONLY)


def _path(folder: Path, document: Mapping[str, Any]) -> Path:
    return folder / f"{document['run_id']}.json"


def _partial(path: Path) -> Path:
    """Where this thread of this process writes what will lie there."""
    return path.parent / f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp"


def _appear(path: Path, document: Mapping[str, Any], renew: bool) -> None:
    """Put what was written in its place, once the disk has it."""
    partial = _partial(path)
    while True:
        try:
            _sync(partial, os.O_RDWR)
            fault_point("result.write")
            partial.replace(path)
            return
        except FileNotFoundError:  # another took it for what one that was killed had left
            if not renew and _sound(path):
                return
            _write(partial, document)


def _sound(path: Path) -> bool:
    """Whether a sound result lies there."""
    with suppress(OSError, ResultRefusedError):
        read_document(path)
        return True
    return False


def _sweep(path: Path) -> None:
    """Delete what processes that were killed left of a result; of one alive it writes again."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):  # gone, or open where an open file cannot go
            left.unlink()


def _write(path: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    path.write_text(text, encoding="utf-8")


def write_whole(path: Path, text: str) -> None:
    """Write a file of one owner durably; it appears whole or not at all."""
    partial = path.with_name(f".{path.name}.tmp")
    try:
        partial.write_text(text, encoding="utf-8")
        _sync(partial, os.O_RDWR)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path, access: int) -> None:
    """Wait until a file, or which files a folder holds, is on the disk."""
    handle = os.open(path, access)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_document(path: Path) -> dict[str, Any]:
    """Read a result file and check it.

    Raises:
        OSError: The file cannot be read.
        ResultRefusedError: It is too large, is not JSON, or breaks its contract.
    """
    size = path.stat().st_size
    if size > SIZE_LIMIT:
        raise ResultRefusedError(
            f"{path.name} holds {size:,} bytes; a result file may hold {SIZE_LIMIT:,}."
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ResultRefusedError(f"{path.name} is not a JSON result: {error}.") from None
    check(document)
    if document["run_id"] != path.stem:
        raise ResultRefusedError(f"{path.name} holds the result of run {document['run_id']}.")
    return document


def check(document: object) -> None:
    """Pass a sound result document.

    Raises:
        ResultRefusedError: Naming the first field that breaks the contract.
    """
    if not isinstance(document, Mapping):
        raise ResultRefusedError("A result is a JSON object.")
    _check_fields(document, _DOCUMENT, "the result")
    if document["schema"] != SCHEMA:
        raise ResultRefusedError(
            f"The result has schema {document['schema']}; this version reads schema {SCHEMA}."
        )
    if not RUN_ID.fullmatch(document["run_id"]):
        raise ResultRefusedError("`run_id` must be 16 lower-case hexadecimal digits.")
    _check_choice(document["status"], STATUSES, "status")
    _check_time(document["created"])
    _check_fields(document["model"], {"name": str}, "`model`")
    _check_fields(document["manifest"], {"hardware_id": str}, "`manifest`")
    for field, kinds in _ENTRIES.items():
        for position, entry in enumerate(document[field]):
            _check_fields(entry, kinds, f"`{field}[{position}]`")
    _check_readings(document["readings"])
    _check_documents(document.get("documents", {}))
    _check_generations(document["generations"])
    if not all(isinstance(note, str) for note in document["notes"]):
        raise ResultRefusedError("`notes` must hold text only.")
    _check_values(document, "the result")


def _check_readings(readings: list[dict[str, Any]]) -> None:
    names = set()
    for reading in readings:
        name = reading["name"]
        if not 0 < len(name) <= 200:
            raise ResultRefusedError("The name of a reading takes 1 to 200 characters.")
        if name in names:
            raise ResultRefusedError(f"The reading `{name}` is given twice.")
        names.add(name)
        _check_choice(reading["direction"], DIRECTIONS, f"direction of `{name}`")
        _check_choice(reading["kind"], KINDS, f"kind of `{name}`")
        for field in ("low", "high"):
            _check_type(reading.get(field), _NULLABLE_NUMBER, f"`{field}` of `{name}`")
        _check_type(reading.get("note", ""), str, f"`note` of `{name}`")


def _check_documents(sums: object) -> None:
    if not isinstance(sums, Mapping):
        raise ResultRefusedError("`documents` must hold lists of sums by name.")
    for name, values in sums.items():
        if not isinstance(values, list) or not all(
            isinstance(one, _NUMBER) and not isinstance(one, bool) for one in values
        ):
            raise ResultRefusedError(f"`{name}` of `documents` must be a list of numbers.")
    if len({len(values) for values in sums.values()}) > 1:
        raise ResultRefusedError("The lists of `documents` must be of one length.")


def _check_generations(generations: list[dict[str, Any]]) -> None:
    for position, generation in enumerate(generations):
        place = f"`generations[{position}]`"
        if not all(type(token) is int for token in generation["tokens"]):
            raise ResultRefusedError(f"`tokens` of {place} must hold whole numbers only.")
        _check_type(generation.get("first_divergence"), (int, type(None)), f"{place} divergence")
        _check_type(generation.get("gap"), _NULLABLE_NUMBER, f"`gap` of {place}")


def _check_fields(entry: object, kinds: Mapping[str, Any], place: str) -> None:
    if not isinstance(entry, Mapping):
        raise ResultRefusedError(f"{place} must be a JSON object.")
    for field, kind in kinds.items():
        if field not in entry:
            raise ResultRefusedError(f"{place} lacks `{field}`.")
        _check_type(entry[field], kind, f"`{field}` of {place}")


def _check_type(value: object, kind: Any, place: str) -> None:
    if isinstance(value, bool) or not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join("null" if one is type(None) else one.__name__ for one in kinds)
        raise ResultRefusedError(f"{place} must be {expected}, not {type(value).__name__}.")


def _check_choice(value: str, choices: tuple[str, ...], field: str) -> None:
    if value not in choices:
        raise ResultRefusedError(f"The {field} must be one of {', '.join(choices)}.")


def _check_time(text: str) -> None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ResultRefusedError("`created` must be a time in ISO 8601.") from None
    if moment.utcoffset() is None:
        raise ResultRefusedError("`created` must name its time zone; use UTC.")


def _check_values(value: object, place: str) -> None:
    if isinstance(value, (float, int, str)):
        _check_value(value, place)
    elif isinstance(value, (list, tuple)):
        for entry in value:  # thousands of sums and tokens, asked here without a call for each
            if type(entry) is not float or not math.isfinite(entry):
                _check_values(entry, place)
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            _check_values(entry, f"`{key}` of {place}" if place == "the result" else place)


def _check_value(value: float | str, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ResultRefusedError(f"{place} holds {value}, which is not a finite number.")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ResultRefusedError(f"{place} holds a whole number beyond 64 bits.")
    if isinstance(value, str) and not _is_text(value):
        raise ResultRefusedError(f"{place} holds half a surrogate pair, which is no text.")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
