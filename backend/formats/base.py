"""The contract of a weight format; knows no method and no model.

A format is a torch module whose buffers are all that is held of a matrix [rows, columns].
Nothing else may be needed to multiply by it, so its bytes are those of its buffers. Formats
nest: what a format holds inside (scales, sparse values, factors) may itself be a format.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.formats.remembered import forget, remembered, without_memory
from kernels import bfloat16, packed
from kernels.products import Product

FEW = 64
"""Activations up to which multiplying by what is held beats a dense matrix, however it is held."""
MOST = 1 << 40
"""Rows, columns, and columns of a group or block; the extension counts in 64 bits."""
HALVES = (torch.bfloat16, torch.float16)


def by_dense(activation: Tensor, weight: Tensor) -> Tensor:
    """Activation [..., columns] times the transpose of a weight [rows, columns] in float32.

    In the type of the activation, but for types of 16 bits where a processor is slower with them.
    """
    dtype = activation.dtype
    if activation.device.type == "cpu" and dtype in HALVES and not bfloat16.quick():
        return functional.linear(activation.to(torch.float32), weight).to(dtype)
    return functional.linear(activation, weight.to(dtype))


class Format(nn.Module, abc.ABC):
    """A matrix [rows, columns] as it lies in memory and on disk."""

    key: ClassVar[str]

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of."""
        return without_memory(super().__getstate__())

    def _apply(self, *given: Any, **named: Any) -> Self:
        forget(self)
        return super()._apply(*given, **named)

    def _load_from_state_dict(self, *given: Any, **named: Any) -> None:
        forget(self)  # what is written in place is counted for most tensors, but not for all
        super()._load_from_state_dict(*given, **named)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that this stands for."""
        return self.rows, self.columns

    @abc.abstractmethod
    def dense(self) -> Tensor:
        """The matrix in float32, [rows, columns]."""

    def multiply(self, activation: Tensor) -> Tensor:
        """Activation [..., columns] times the transposed matrix: [..., rows].

        Few activations are multiplied by what is held, where the extension can read it, and many
        where it keeps up with a dense matrix; else the matrix is made dense first.
        """
        matrix = self.lying() if activation.device.type == "cpu" else None
        if matrix is None:
            return by_dense(activation, self.dense())
        if activation.numel() <= matrix.most * self.columns and not activation.requires_grad:
            return matrix.multiply(activation)
        return by_dense(activation, matrix.dense())

    def affine(self, activation: Tensor, bias: Tensor) -> Tensor:
        """The product plus a bias [rows]."""
        return self.multiply(activation) + bias

    def take(self, rows: Tensor) -> Tensor:
        """Some rows of the matrix, [number of rows, columns], by their places."""
        matrix = self.lying() if rows.device.type == "cpu" else None
        return self.dense()[rows] if matrix is None else matrix.take(rows)

    def forward(self, activation: Tensor) -> Tensor:
        """Same as `multiply`."""
        return self.multiply(activation)

    def matrix(self) -> packed.Matrix | None:
        """How the extension reads what is held; None if it does not know this."""
        return None

    def lying(self) -> packed.Matrix | None:
        """The same, remembered as long as the parts are those of before."""
        return remembered(self, self.matrix)

    def product(self) -> Product | None:
        """The product as a decode step in one call makes it, or None if it knows no such one."""
        matrix = self.matrix()
        return None if matrix is None else matrix.product()

    @property
    def speed(self) -> str:
        """`measured` if a product runs on the packed form, `emulated` if it is unpacked first."""
        return "emulated" if self.product() is None else "measured"

    def settings(self) -> dict[str, Any]:
        """What besides the shape is needed to build an empty one: plain JSON values."""
        return {}

    def inner(self) -> dict[str, Format]:
        """Formats held inside, by name."""
        return {name: part for name, part in self.named_children() if isinstance(part, Format)}

    @classmethod
    def build(
        cls, rows: int, columns: int, settings: dict[str, Any], inner: dict[str, Format]
    ) -> Self:
        """An empty one of this shape, whose buffers are then loaded."""
        return cls(rows, columns, **settings, **inner)

    def check(self) -> None:
        """Hold what was loaded against itself, since products read it without looking.

        Raises:
            ValueError: what is held would lead a product astray.
        """
        parts = self.inner()
        for name, wanted in self.fitting().items():
            if parts[name].shape != wanted:
                rows, columns = parts[name].shape
                raise ValueError(
                    f"Its {name} of {rows:,} x {columns:,} do not fit where "
                    f"{wanted[0]:,} x {wanted[1]:,} are read."
                )
        for part in parts.values():
            part.check()

    def fitting(self) -> dict[str, tuple[int, int]]:
        """Rows and columns that formats inside must have, by name; their headers may say any."""
        return {}

    def header(self) -> dict[str, Any]:
        """JSON from which `from_header` builds an empty twin."""
        return {
            "format": self.key,
            "rows": self.rows,
            "columns": self.columns,
            "settings": self.settings(),
            "inner": {name: part.header() for name, part in self.inner().items()},
        }

    def parts(self) -> dict[str, int]:
        """Bytes held, by name of the part; the sum is what the matrix takes."""
        return {name.replace(".", "/"): buffer.nbytes for name, buffer in self.named_buffers()}

    @property
    def nbytes(self) -> int:
        """Bytes held in all."""
        return sum(self.parts().values())

    @property
    def bits(self) -> float:
        """Bits per number of the matrix, everything counted."""
        return 8 * self.nbytes / (self.rows * self.columns)

    def dense_leaves(self) -> Iterator[Format]:
        """The dense matrices inside that a later stage may compress further."""
        for part in self.inner().values():
            yield from part.dense_leaves()

    def packed(self) -> Format:
        """Itself in the layout of the fastest product here, in the same bytes but for padding."""
        if self.on_gpu:
            return self.slotted()
        for name, part in self.inner().items():
            setattr(self, name, part.packed())
        return self

    @property
    def on_gpu(self) -> bool:
        """Whether what is held lies on a GPU."""
        return any(buffer.device.type == "cuda" for buffer in self.buffers())

    def slotted(self) -> Format:
        """Itself as an operation for a GPU takes it; as it is where there is none."""
        return self

    def _slot_parts(self) -> Self:
        """Itself, each part as an operation takes it."""
        for name, part in self.inner().items():
            setattr(self, name, part.slotted())
        return self


_MODULES = {
    "binary-codes": "binary",
    "entropy-coded": "entropy",
    "window-coded": "window",
    "float-codes": "floating",
    "scalar-codebook": "scalar",
    "shared-rows": "shared_rows",
    "sign-block": "signs",
    "transposed": "transposed",
    "bitmask-sparse": "bitmask",
    "columns": "columns",
    "dense": "dense",
    "group-sparse": "group_sparse",
    "integer-groups": "integer",
    "low-rank": "low_rank",
    "monarch": "monarch",
    "outliers": "outliers",
    "rounded-inputs": "rounded_inputs",
    "rows": "rows",
    "sparse-2-4": "sparse24",
    "sum": "sum",
    "table-codes": "table",
    "tensor-train": "tensor_train",
    "vector-codebook": "vector",
}


def format_class(key: str) -> type[Format]:
    """The class of a format by its key.

    Raises:
        ValueError: no format has this key.
    """
    if key not in _MODULES:
        raise ValueError(f"No format is called {key!r}; there are {', '.join(sorted(_MODULES))}.")
    module = importlib.import_module(f"backend.formats.{_MODULES[key]}")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Format) and vars(value).get("key") == key
    )


def is_told_whole(held: Format) -> bool:
    """Whether `from_header` knows this format and all inside, which it does of what is on disk."""
    return all(one.key in _MODULES for one in held.modules() if isinstance(one, Format))


def from_header(header: dict[str, Any]) -> Format:
    """An empty format, its buffers uninitialised, ready for `load_state_dict`.

    Raises:
        ValueError: a matrix, groups or blocks without columns, or of more than can be.
    """
    counts = {"rows": header["rows"], "columns": header["columns"]}
    counts["columns of a group"] = header["settings"].get("group_size", 1)
    counts["columns of a block"] = header["settings"].get("block", 1)
    for name, count in counts.items():
        if type(count) is not int or not 1 <= count <= MOST:
            raise ValueError(
                f"A header says {count!r} {name}, where one or more are needed, at most {MOST:,}."
            )
    inner = {name: from_header(part) for name, part in header["inner"].items()}
    cls = format_class(header["format"])
    return cls.build(header["rows"], header["columns"], header["settings"], inner)


def reordered(values: Tensor, places: Tensor) -> Tensor:
    """The numbers of the last axis at some places; as a matrix, which torch reads faster."""
    found = values.reshape(-1, values.shape[-1]).index_select(1, places)
    return found.view(*values.shape[:-1], places.numel())


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised buffer."""
    return torch.empty(shape, dtype=dtype)
