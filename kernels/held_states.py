"""How a decode step reads keys and values that a cache holds, piece by piece, where they lie.

A piece is a chunk: the tokens of all heads that were held at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from kernels import bitpack, extension
from kernels.packed import Codes, planes_of
from kernels.rooms import Address, Number, States


class _Coded(ctypes.Structure):
    _fields_ = (
        ("codes", Codes),
        ("scales", Address),
        ("offsets", Address),
        *((name, Number) for name in ("heads", "tokens", "channels", "by_channel")),
    )


class _Corrected(ctypes.Structure):
    _fields_ = (
        ("codes", _Coded),
        *((name, Address) for name in ("left", "right", "places", "values")),
        *((name, Number) for name in ("rank", "apart")),
    )


class _Parted(ctypes.Structure):
    _fields_ = (
        *((name, _Coded) for name in ("marked", "others")),
        *((name, Address) for name in ("marks", "divisors")),
        *((name, Number) for name in ("chunks", "salient")),
    )


def codes(
    planes: dict[int, Tensor], scales: Tensor, offsets: Tensor, channels: int, by_channel: bool
) -> States:
    """Of codes in chunks.

    Args:
        planes: by width, [1, heads, chunks, tokens, bytes].
        scales: bfloat16, [1, heads, chunks, 1, channels] or [1, heads, chunks, tokens, 1].
        offsets: beside them.
        channels: of a token.
        by_channel: whether the tokens of a chunk share a scale, or the channels of a token.
    """
    heads, chunks, tokens = next(iter(planes.values())).shape[1:4]
    structure = _Coded(
        planes_of(planes), scales.data_ptr(), offsets.data_ptr(),
        heads, chunks * tokens, channels, by_channel,
    )  # fmt: skip
    return States("read_codes", structure, (planes.copy(), scales, offsets))


def rounded(
    states: Tensor, bits: int, *, by_channel: bool
) -> tuple[dict[int, Tensor], Tensor, Tensor] | None:
    """Planes, scales and offsets of states [1, heads, chunks, tokens, channels], as `codes` reads.

    None where the extension cannot round them.
    """
    library = extension.library()
    if library is None or states.device.type != "cpu" or not states.numel():
        return None
    plain = states.to(torch.float32).contiguous()
    batch, heads, chunks, tokens, channels = plain.shape
    outer = batch, heads, chunks
    planes = {
        width: torch.empty(
            *outer, tokens, bitpack.packed_columns(channels, width), dtype=torch.uint8
        )
        for width in bitpack.plane_widths(bits)
    }
    shared = (*outer, 1, channels) if by_channel else (*outer, tokens, 1)
    scales, offsets = (torch.empty(shared, dtype=torch.bfloat16) for _ in range(2))
    where = planes_of(planes)
    _hold_codes(library)(
        plain.data_ptr(), batch * heads * chunks, tokens, channels, bits, by_channel,
        ctypes.addressof(where), scales.data_ptr(), offsets.data_ptr(),
    )  # fmt: skip
    return planes, scales, offsets


@cache
def _hold_codes(library: ctypes.CDLL) -> Callable[..., None]:
    """The function, which knows the kinds of what it is given."""
    kinds = Address, *[Number] * 5, *[Address] * 3
    return ctypes.CFUNCTYPE(None, *kinds)(("hold_codes", library))


def corrected(
    held: States, factors: tuple[Tensor, Tensor] | None, apart: tuple[Tensor, Tensor] | None
) -> States:
    """Of codes with what is added to each chunk and what stands in its place.

    Args:
        held: the codes.
        factors: bfloat16, [1, heads, chunks, tokens, rank] and [1, heads, chunks, rank, channels].
        apart: places in a chunk's numbers, 16 bits without a sign, and values in bfloat16,
            [1, heads, chunks, number].
    """
    left, right = factors or (None, None)
    places, values = apart or (None, None)
    structure = _Corrected(
        held.structure,
        *(None if part is None else part.data_ptr() for part in (left, right, places, values)),
        0 if right is None else right.shape[3],
        0 if values is None else values.shape[3],
    )
    return States("read_corrected", structure, (held, factors, apart))


def parted(marked: States, others: States, marks: Tensor, divisors: Tensor | None) -> States:
    """Of codes of a chunk's marked tokens and of its others.

    Args:
        marked: codes.
        others: codes.
        marks: bytes [1, heads, chunks, ceil(tokens / 8)], a bit a token.
        divisors: bfloat16, [1, heads, chunks, 1, channels], multiplied after; None for none.
    """
    chunks = marks.shape[2]
    structure = _Parted(
        marked.structure, others.structure, marks.data_ptr(),
        None if divisors is None else divisors.data_ptr(),
        chunks, marked.structure.tokens // chunks,
    )  # fmt: skip
    return States("read_parted", structure, (marked, others, marks, divisors))
