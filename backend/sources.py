"""Where a model comes from: embedded, folder or Hub; imports neither torch nor transformers."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from backend.errors import ModelError

EMBEDDED = Path(__file__).parents[1] / "data" / "model"
HEADER_LIMIT = 4 << 20  # bytes; a header of 20,000 tensors takes less
TENSOR_LIMIT = 20_000  # in one file
_TENSOR = re.compile(r"[\w.-]{1,200}")
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[\w.-]{1,100}")


@dataclass(frozen=True)
class ModelSource:
    """A name, and either a folder or a revision on the Hub."""

    name: str
    folder: Path | None = None
    revision: str = ""

    @classmethod
    def parse(cls, text: str, *, folders: bool = True) -> Self:
        """Read `default`, a folder, or `owner/name` with an optional `@revision`.

        Without `folders` none is looked for, so that nobody learns whether it exists.

        Raises:
            ModelError: the text is none of these.
        """
        text = text.strip()
        if text in ("", "default"):
            return cls("default", EMBEDDED)
        if folders and (path := folder_of(text)):
            return cls(path.name or path.resolve().name, path.resolve())
        name, _, revision = text.partition("@")
        if not _REPOSITORY.fullmatch(name) or (revision and not _REVISION.fullmatch(revision)):
            raise ModelError(
                f"{text!r} is no model: write `default`{', a folder that exists,' * folders} or a "
                "Hub name such as Qwen/Qwen3-0.6B, with @revision if you like."
            )
        return cls(name, None, revision)

    @property
    def embedded(self) -> bool:
        """Whether this is the model that came with this copy, whose world the texts tell of."""
        return self.folder == EMBEDDED

    def config(self) -> dict[str, Any]:
        """The model's configuration as JSON, if its files are here.

        Raises:
            ModelError: the folder has none that can be read.
        """
        if self.folder is None:
            return {}
        try:
            return json.loads((self.folder / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.folder}/config.json cannot be read: {error}") from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, if the model's files are here.

        Raises:
            ModelError: the folder holds no model that is read.
        """
        return {} if self.folder is None else tensor_shapes(check_folder(self.folder))

    def parameters(self) -> int:
        """Numbers in all tensors, if the model's files are here."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def to_json(self) -> dict[str, Any]:
        """Name, folder and revision."""
        folder = None if self.folder is None else str(self.folder)
        return {"name": self.name, "folder": folder, "revision": self.revision}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Undo `to_json`."""
        folder = None if data["folder"] is None else Path(data["folder"])
        return cls(data["name"], folder, data["revision"])


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and bytes of a model's weights, configuration and tokenizer."""
    total = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
        total.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def folder_of(text: str) -> Path | None:
    """The folder that a text names, if it is there."""
    try:
        path = Path(text).expanduser()
        return path if text and path.is_dir() else None
    except (OSError, RuntimeError):  # too long a name, or of nobody's home
        return None


def check_folder(folder: Path) -> Path:
    """The same folder, if it holds a configuration and weights that are read.

    Raises:
        ModelError: it lacks either.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json; a model's folder has one.")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} holds no .safetensors weights; pickled ones (.bin, .pt) are never read. "
            "Convert the model with save_pretrained and try again."
        )
    return folder


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in a folder's safetensors, read from the headers alone.

    Raises:
        ModelError: a file is not safetensors, or says what cannot be.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0]
            if not 2 <= size <= HEADER_LIMIT:
                raise ModelError(f"{path} is no safetensors file: its header says {size:,} bytes.")
            try:
                header = json.loads(file.read(size))
            except (ValueError, RecursionError) as error:
                raise ModelError(f"{path} has a header that is not JSON.") from error
        if not isinstance(header, dict):
            raise ModelError(f"{path} has a header that is no JSON object.")
        header.pop("__metadata__", None)
        if len(header) > TENSOR_LIMIT:
            raise ModelError(
                f"{path} names {len(header):,} tensors; at most {TENSOR_LIMIT:,} are read."
            )
        room = path.stat().st_size - 8 - size
        for name, entry in header.items():
            _check_tensor(path, name, entry, room)
            shapes[name] = tuple(entry["shape"])
    return shapes


def _check_tensor(path: Path, name: str, entry: Any, room: int) -> None:
    if not _TENSOR.fullmatch(name):
        raise ModelError(f"{path} names a tensor {name[:40]!r}; letters, digits, . and - can be.")
    try:
        start, end = entry["data_offsets"]
        numbers = [*entry["shape"], start, end]
        sound = all(type(one) is int and one >= 0 for one in numbers)
        taken = math.prod(entry["shape"]) * _BITS[entry["dtype"]] // 8
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError(f"{path} does not say what {name} is: {error!r}.") from None
    if not sound or end - start != taken or end > room:
        raise ModelError(
            f"{path} says that {name} has shape {entry['shape']} at {start} to {end}, which its "
            f"{room:,} bytes of numbers do not hold. Download the model again."
        )
