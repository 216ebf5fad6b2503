"""A held matrix's product as torch's compiler sees it: `torch.ops.paretoscope.held_mm`.

Opaque, so that a model is compiled and exported whole; what runs is the product that runs without a
compiler, from the same buffers. On a processor: formats for a GPU have operations of their own.
"""

from __future__ import annotations

import json
import threading

import torch
from torch import Tensor, nn

from backend.formats.base import Format, from_header, is_told_whole
from backend.formats.remembered import forget
from kernels import registry

_KEPT = threading.local()


def takes(held: Format, activation: Tensor) -> bool:
    """Whether this product is left to the operation; it has no gradient."""
    wanted = activation.requires_grad and torch.is_grad_enabled()
    return activation.device.type == "cpu" and not wanted and is_told_whole(held)


def multiply(held: Format, activation: Tensor, bias: Tensor | None) -> Tensor:
    """Activation [..., columns] times the transpose plus a bias [rows], for a compiler to trace."""
    return product(activation, list(held.buffers()), bias, _header(held), held.rows)


@torch.compiler.assume_constant_result
def _header(held: Format) -> str:
    return json.dumps(held.header())


def _affine(
    activation: Tensor, parts: list[Tensor], bias: Tensor | None, header: str, _rows: int
) -> Tensor:
    held, places = _empty(header)
    before = [module._buffers[name] for module, name in places]
    _fill(places, parts)
    try:
        return held.multiply(activation) if bias is None else held.affine(activation, bias)
    finally:  # what is kept between two calls keeps no weight alive
        _fill(places, before)
        for module in held.modules():
            forget(module)


def _empty(header: str) -> tuple[Format, list[tuple[nn.Module, str]]]:
    """A format of this header, its buffers without memory, and where they belong; one a thread."""
    known = vars(_KEPT).setdefault("formats", {})
    if header not in known:
        with torch.device("meta"):
            held = from_header(json.loads(header))
        known[header] = (
            held,
            [
                (module, name)
                for module in held.modules()
                for name, buffer in module._buffers.items()
                if buffer is not None  # as `buffers` leaves out what is not there
            ],
        )
    return known[header]


def _fill(places: list[tuple[nn.Module, str]], tensors: list[Tensor | None]) -> None:
    for (module, name), tensor in zip(places, tensors, strict=True):
        module._buffers[name] = tensor


product = registry.on_processor(
    "held_mm(Tensor x, Tensor[] parts, Tensor? bias, str header, int rows) -> Tensor",
    shape=lambda x, *others: x.new_empty(*x.shape[:-1], others[-1]),
    run=_affine,
)
