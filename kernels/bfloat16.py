"""bfloat16 numbers as their exponents and all else, each a byte; and where they are quick."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def taken_apart(values: Tensor) -> tuple[Tensor, Tensor]:
    """Exponents of bfloat16 numbers, and sign and mantissa, as bytes of the same shape.

    Raises:
        TypeError: numbers of another type.
    """
    if values.dtype != torch.bfloat16:
        raise TypeError(
            f"Exponents are taken of bfloat16, not of {values.dtype}: convert it first."
        )
    bits = values.detach().contiguous().view(torch.int16).to(torch.int32) & 0xFFFF
    rest = ((bits >> 8) & 0x80) | (bits & 0x7F)
    return ((bits >> 7) & 0xFF).to(torch.uint8), rest.to(torch.uint8)


def joined(exponents: Tensor, rest: Tensor) -> Tensor:
    """Undo `taken_apart`."""
    rest = rest.to(torch.int32)
    bits = ((rest & 0x80) << 8) | (exponents.to(torch.int32) << 7) | (rest & 0x7F)
    return bits.to(torch.uint16).view(torch.bfloat16)


@cache
def quick() -> bool:
    """Whether this processor multiplies dense matrices of bfloat16 faster than of float32.

    Those with matrix units do, and AMD's with AVX-512; on others with AVX-512 alone a product of
    bfloat16 takes twice the time of float32, and without AVX-512 numbers are widened first. Of
    processors that are no x86 nothing is known here, and of none where torch is too old to tell;
    bfloat16 stays.
    """
    tell = getattr(torch.cpu, "get_capabilities", None)
    known = tell() if tell else {}
    if known.get("architecture") != "x86_64":
        return True
    by_vectors = known.get("avx512_bf16", False) and "AMD" in str(known.get("cpu_name", ""))
    return bool(known.get("amx_bf16", False) or by_vectors)
