"""Products of 8-bit activations with 8-bit weights, and what rotates and quantises activations.

Both sides are int8 or float8 (e4m3); a scale belongs to each token and to each row of the weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import registry

SMALLEST = 1e-8
WIDEST = 8192
"""Columns of a row that one program rotates."""


def check_rotation(columns: int) -> None:
    """Refuse rows that the rotation does not take.

    Raises:
        ValueError: they are no power of two up to 8,192.
    """
    if columns < 2 or columns & (columns - 1) or columns > WIDEST:
        raise ValueError(
            f"Rows of {columns} columns cannot be rotated; a power of two up to {WIDEST} can."
        )


def check_levels(bits: int) -> None:
    """Refuse widths of a code that int8 does not hold.

    Raises:
        ValueError: not 2 to 8 bits.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"A code takes 2 to 8 bits, not {bits}.")


def _product(
    activation: Tensor,
    weight: Tensor,
    token_scales: Tensor,
    row_scales: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    out = (activation.to(torch.float64) @ weight.to(torch.float64).T).to(torch.float32)
    out *= token_scales.to(torch.float32).unsqueeze(1) * row_scales.to(torch.float32)
    return (out if bias is None else out + bias.to(torch.float32)).to(row_scales.dtype)


def _rotated(activation: Tensor, signs: Tensor) -> Tensor:
    columns = activation.shape[1]
    check_rotation(columns)
    out = activation.to(torch.float32) * signs.to(torch.float32)
    half = 1
    while half < columns:
        pairs = out.view(out.shape[0], -1, 2, half)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        out = torch.stack([first + second, first - second], 2).view(out.shape)
        half *= 2
    return out * columns**-0.5


def _quantised(activation: Tensor, signs: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    check_levels(bits)
    rotated = _rotated(activation, signs)
    levels = (1 << (bits - 1)) - 1
    scales = (rotated.abs().amax(1) / levels).clamp(min=SMALLEST)
    codes = (rotated / scales.unsqueeze(1)).round().clamp(-levels, levels)
    return codes.to(torch.int8), scales


def _shape(x: Tensor, weight: Tensor, _tokens: Tensor, scales: Tensor, *_: Tensor) -> Tensor:
    return scales.new_empty(x.shape[0], weight.shape[0])


_ARGUMENTS = "(Tensor x, Tensor weight, Tensor token_scales, Tensor row_scales, Tensor? bias=None)"

int8 = registry.operation(
    f"w8a8_mm{_ARGUMENTS} -> Tensor", shape=_shape, reference=_product, kernel="scaled_mm.product"
)
"""int8 activation [tokens, columns] times int8 weight [rows, columns]: [tokens, rows].

Scales [tokens], float32, and [rows], whose type is the result's; `bias` [rows].
"""

float8 = registry.operation(
    f"fp8_mm{_ARGUMENTS} -> Tensor", shape=_shape, reference=_product, kernel="scaled_mm.product"
)
"""As `int8`, of float8_e4m3fn on both sides."""

rotate = registry.operation(
    "fwht(Tensor x, Tensor signs) -> Tensor",
    shape=lambda x, _signs: torch.empty_like(x),
    reference=lambda x, signs: _rotated(x, signs).to(x.dtype),
    kernel="hadamard.rotate",
)
"""Rows [tokens, columns] times signs [columns], then the orthonormal Walsh-Hadamard transform."""

rotate_and_quantise = registry.operation(
    "hadamard_quant(Tensor x, Tensor signs, int bits) -> (Tensor, Tensor)",
    shape=lambda x, _signs, _bits: (
        torch.empty_like(x, dtype=torch.int8),
        x.new_empty(x.shape[0], dtype=torch.float32),
    ),
    reference=_quantised,
    kernel="hadamard.rotate_and_quantise",
)
"""As `rotate`, then symmetric codes of some bits, int8, and a scale a token, float32."""
