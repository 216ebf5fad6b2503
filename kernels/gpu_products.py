"""Every Triton product whose blocks are measured on a GPU, at any shape: what `kernels.gpu` tunes.

`outlier_mm` takes what is found for `wna16_mm`, and `fp8_mm` what is found for `w8a8_mm`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import bitplane_mm, lossless_mm, lut_mm, scaled_mm, slots, sparse_mm, vq_mm, wna16_mm
from kernels.configs import Blocks

GROUP = 128
BITS = (2, 3, 4, 8)
PLANES, RANK, DIMENSION = 3, 16, 4


@dataclass(frozen=True)
class Case:
    """A product at one shape.

    Attributes:
        held: the largest part of the weight, of which several copies are gone through in turn.
        beside: bytes that a call reads besides, without the activation.
        call: the kernel with a copy of `held` and blocks.
        reference: what the operation gives by torch.
    """

    held: Tensor
    beside: int
    call: Callable[[Tensor, Blocks], Tensor]
    reference: Callable[[], Tensor]


@dataclass(frozen=True)
class Tunable:
    """A product whose blocks can be chosen.

    Attributes:
        operation: its name in `kernels.configs`.
        bits: of a code there.
        group: columns of a group there; 0 for all of a row.
        make: the case with activation rows, outputs, inputs and a device.
    """

    operation: str
    bits: int
    group: int
    make: Callable[[int, int, int, str], Case]


def _case(kernel: str, held: Tensor, before: tuple, after: tuple, operation: Callable) -> Case:
    """A case whose kernel, `module.function`, takes `held` between these arguments."""
    import importlib  # Triton is optional

    module, _, name = kernel.partition(".")
    function = getattr(importlib.import_module(f"kernels.triton.{module}"), name)
    beside = sum(part.nbytes for part in (*before[1:], *after) if isinstance(part, Tensor))
    return Case(
        held,
        beside,
        lambda held, blocks: function(*before, held, *after, blocks=blocks),
        lambda: operation(*before, held, *after),
    )


def _activation(rows: int, inputs: int, device: str) -> Tensor:
    return torch.randn(rows, inputs, device=device).bfloat16()


def _words(outputs: int, inputs: int, bits: int, device: str, tile: int = GROUP) -> Tensor:
    codes = torch.randint(0, 1 << bits, (outputs, inputs), device=device)
    return slots.pack(codes, bits, tile)


def _numbers(*shape: int, device: str) -> Tensor:
    return torch.rand(shape, device=device).add(0.5).bfloat16()


def _integers(bits: int) -> Callable[[int, int, int, str], Case]:
    def make(rows: int, outputs: int, inputs: int, device: str) -> Case:
        scales, offsets = _numbers(2, inputs // GROUP, outputs, device=device)
        words = _words(outputs, inputs, bits, device)
        after = scales, offsets, bits, GROUP
        before = (_activation(rows, inputs, device),)
        return _case("wna16_mm.wna16_mm", words, before, after, wna16_mm.product)

    return make


def _tables(rows: int, outputs: int, inputs: int, device: str) -> Case:
    tables = _numbers(outputs, 16, device=device)
    before = (_activation(rows, inputs, device),)
    words = _words(outputs, inputs, 4, device)
    return _case("wna16_mm.lut_mm", words, before, (tables, 4), lut_mm.product)


def _one_table(rows: int, outputs: int, inputs: int, device: str) -> Case:
    table, scales = (
        _numbers(1, 16, device=device),
        _numbers(inputs // GROUP, outputs, device=device),
    )
    before = (_activation(rows, inputs, device),)
    words = _words(outputs, inputs, 4, device)
    return _case("wna16_mm.lut_mm", words, before, (table, 4, None, scales, GROUP), lut_mm.product)


def _mask(rows: int, outputs: int, inputs: int, device: str) -> Case:
    weight = _numbers(outputs, inputs, device=device)
    mask = torch.rand(outputs, inputs, device=device) < 0.5
    words, starts, values = sparse_mm.pack_bitmask(weight, mask)
    before = _activation(rows, inputs, device), words, starts
    return _case("sparse_mm.bitmask", values, before, (), sparse_mm.bitmask)


def _fours(rows: int, outputs: int, inputs: int, device: str) -> Case:
    weight = _numbers(outputs, inputs, device=device)
    mask = (torch.arange(inputs, device=device) % 4 < 2).expand(outputs, -1)
    values, words = sparse_mm.pack_fours(weight, mask)
    before = (_activation(rows, inputs, device),)
    return _case("sparse_mm.fours", values, before, (words,), sparse_mm.fours)


def _lossless(rows: int, outputs: int, inputs: int, device: str) -> Case:
    weight = 0.02 * torch.randn(outputs, inputs, device=device)
    rest, *after = lossless_mm.pack(weight.bfloat16())
    before = (_activation(rows, inputs, device),)
    return _case("lossless_mm.product", rest, before, tuple(after), lossless_mm.product)


def _planes(rows: int, outputs: int, inputs: int, device: str) -> Case:
    words = torch.stack([_words(outputs, inputs, 1, device) for _ in range(PLANES)])
    worth = _numbers(PLANES + 1, inputs // GROUP, outputs, device=device)
    before = (_activation(rows, inputs, device),)
    return _case("bitplane_mm.planes", words, before, (worth, GROUP), bitplane_mm.planes)


def _signs(rows: int, outputs: int, inputs: int, device: str) -> Case:
    factors = _numbers(outputs, RANK, device=device), _numbers(RANK, inputs, device=device)
    before = (_activation(rows, inputs, device),)
    words = _words(outputs, inputs, 1, device)
    return _case("bitplane_mm.sized", words, before, factors, bitplane_mm.sized)


def _vectors(rows: int, outputs: int, inputs: int, device: str) -> Case:
    codebook = _numbers(256, DIMENSION, device=device)
    shape = inputs, outputs // DIMENSION
    indices = torch.randint(0, 256, shape, device=device).to(torch.uint8)
    before = (_activation(rows, inputs, device),)
    return _case("vq_mm.product", indices, before, (codebook, outputs, True), vq_mm.product)


def _eight_bits(rows: int, outputs: int, inputs: int, device: str) -> Case:
    x, weight = (
        torch.randint(-127, 128, (count, inputs), device=device).to(torch.int8)
        for count in (rows, outputs)
    )
    scales = torch.rand(rows, device=device), _numbers(outputs, device=device)
    return _case("scaled_mm.product", weight, (x,), scales, scaled_mm.int8)


PRODUCTS = {
    **{f"wna16_mm {bits} bits": Tunable("wna16_mm", bits, GROUP, _integers(bits)) for bits in BITS},
    "lut_mm": Tunable("lut_mm", 4, 0, _tables),
    "lut_mm, one table": Tunable("lut_mm", 4, GROUP, _one_table),
    "bitmask_mm": Tunable("bitmask_mm", 16, GROUP, _mask),
    "sp24_mm": Tunable("sp24_mm", 16, GROUP, _fours),
    "lossless_mm": Tunable("lossless_mm", 16, GROUP, _lossless),
    "bitplane_mm": Tunable("bitplane_mm", PLANES, GROUP, _planes),
    "signs_mm": Tunable("signs_mm", 1, GROUP, _signs),
    "vq_mm": Tunable("vq_mm", 8, DIMENSION, _vectors),
    "w8a8_mm": Tunable("scaled_mm", 8, 0, _eight_bits),
}
"""By name, in the order in which they are measured."""
