"""Unified layer skipping: as many blocks as the target allows, evenly spaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.methods.base import ModelMethod, Stage, setting

if TYPE_CHECKING:
    from backend.calibrate.walk import Walk
    from backend.methods.anatomy import Anatomy
    from backend.models.view import View


@dataclass(frozen=True)
class LayerDrop(ModelMethod):
    """Keep as many blocks as the budget holds, evenly spaced from the first to the last.

    How many blocks stay follows from the target alone, and every input takes the same ones, so
    that the speed-up is the same for all. The first and the last block stay; those between are
    left out at even distances. They are deleted, not skipped: they take neither time nor bytes.
    """

    stage = Stage.RESHAPE
    paper = "arXiv 2404.06954"
    claim = "The same speed-up for every input, at less loss than skipping by confidence."
    limits = "Blocks of one model only go whole, so that a budget is met to within a block."
    yields = ("dense",)

    bits: float = setting(
        13.0, "Bits per original number of the model, 16 for each that stays.", low=1.0, high=16.0
    )

    def least(self, anatomy: Anatomy) -> int:
        """The first block, and what lies outside of the blocks."""
        return anatomy.numbers - sum(anatomy.block_numbers[1:])

    def rewrite(self, walk: Walk) -> dict[str, Any]:
        """Delete blocks of the model of a walk.

        Raises:
            OutOfReachError: one block takes more than the budget.
        """
        from backend.models.depth import keep_blocks

        self.check(walk.view.anatomy())
        kept = self.kept(walk.view)
        keep_blocks(walk.view, kept)
        walk.restart()
        return {"blocks": kept}

    @classmethod
    def rebuild(cls, view: View, record: dict[str, Any]) -> None:
        """Take the same blocks out of a skeleton."""
        from backend.models.depth import keep_blocks

        keep_blocks(view, [int(block) for block in record["blocks"]])

    def kept(self, view: View) -> list[int]:
        """The blocks that stay, one at least."""
        whole = view.numbers
        sizes = [sum(part.numel() for part in block.parameters()) for block in view.blocks]
        rest = whole - sum(sizes)
        for count in range(len(sizes), 1, -1):
            kept = spaced(len(sizes), count)
            if rest + sum(sizes[block] for block in kept) <= self.bits / 16 * whole:
                return kept
        return spaced(len(sizes), 1)


def spaced(blocks: int, count: int) -> list[int]:
    """`count` of so many blocks, the first and the last among them, at even distances."""
    if count == 1:
        return [0]
    return [(2 * place * (blocks - 1) + count - 1) // (2 * (count - 1)) for place in range(count)]
