"""DFloat11: exponents of 16-bit weights in Huffman codes, every bit kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend import formats
from backend.methods.base import EncodeMethod, Stage, setting

if TYPE_CHECKING:
    from torch import Tensor

    from backend.formats import Format


@dataclass(frozen=True)
class Dfloat11(EncodeMethod):
    """Hold every 16-bit number in about 11 bits, bit for bit as it was.

    The exponents of trained weights take few of their 256 values, so they are held in Huffman
    codes of at most 12 bits; signs and mantissas stay as they are. Matrices, embedding and head
    are coded, and what other methods left in 16 bits: factors, scales, kept values. A matrix is
    decoded when it is multiplied. The proof of losslessness compares every tensor.

    Codes of a fixed length, which are not the paper's, take 12 bits a number: four for one of the
    15 commonest exponents, and numbers with another exponent lie apart. They are multiplied
    where they lie.
    """

    stage = Stage.ENCODE
    paper = "arXiv 2504.11651"
    pace = 0.34
    claim = "70 % of the size with bit-identical outputs; 1.9x to 38.8x over offloading to a CPU."
    limits = "Norms and biases stay as they are. A budget below what the values need is refused."

    bits: float = setting(
        16.0, "Most bits per number; it takes what the exponents' entropy asks.", low=9.5, high=16.0
    )

    codes: str = setting(
        "huffman", "Exponents in Huffman codes, or all in four bits.", choices=("huffman", "fixed")
    )

    def encode(self, values: Tensor) -> Format | None:
        """Code a matrix [rows, columns], bfloat16, where that makes it smaller."""
        kind = formats.EntropyCoded if self.codes == "huffman" else formats.WindowCoded
        held = kind.pack(values)
        return held if held.nbytes < values.nbytes else None
