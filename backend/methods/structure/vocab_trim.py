"""Vocabulary trimming: delete the rows of tokens that the target text does not use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend import formats
from backend.errors import ModelError
from backend.later import torch
from backend.methods.base import ModelMethod, Stage, setting

if TYPE_CHECKING:
    from torch import Tensor

    from backend.calibrate.walk import Walk
    from backend.methods.anatomy import Anatomy
    from backend.models.view import View


@dataclass(frozen=True)
class VocabTrim(ModelMethod):
    """Delete the rows of tokens that the calibration text uses least or not at all.

    Embedding and head keep the rows of the tokens that the target text, that of calibration,
    uses most, as many as the budget holds. All other tokens share one row, their mean, so that
    any text can still be read and the tokenizer stays as it is. A head that is tied to the
    embedding stays tied; one that is not is cut in the same places.
    """

    stage = Stage.RESHAPE
    paper = "arXiv 2305.15020"
    claim = "About half of the vocabulary is enough to keep the quality in one language."
    limits = "Tokens that were deleted can be read, not told apart; blocks stay whole."
    yields = ("dense",)

    bits: float = setting(
        14.0, "Bits per original number of the model, 16 for each that stays.", low=1.0, high=16.0
    )

    def least(self, anatomy: Anatomy) -> int:
        """One token's rows, those that the others share, and a bit a token.

        Raises:
            ModelError: no table of tokens is found.
        """
        if not anatomy.tables:
            raise ModelError("vocab-trim needs a table of tokens and a head; this model has none.")
        shared = sum((vocabulary - 2) * width for vocabulary, width in anatomy.tables)
        mask = sum(-(-vocabulary // 16) for vocabulary, _ in anatomy.tables)
        return anatomy.numbers - shared + mask

    def rewrite(self, walk: Walk) -> dict[str, Any]:
        """Trim the vocabulary of the model of a walk.

        Raises:
            ModelError: embedding or head are no plain tables.
            OutOfReachError: the blocks alone take more than the budget.
        """
        view = walk.view
        embedding, head = view.embedding, view.head
        if not isinstance(embedding, torch.nn.Embedding) or head is None:
            raise ModelError("vocab-trim needs a table of tokens and a head; this model has none.")
        self.check(view.anatomy())
        tied = head.weight is embedding.weight
        kept = self.chosen(view, walk.windows, tied)
        if kept is None:
            return {}
        untied = None if tied else _shared(head.weight.detach(), kept)
        view.hold_embedding(_shared(embedding.weight.detach(), kept))
        if untied is not None:
            view.replace(view.name_of(head), formats.HeldLinear(untied, head.bias))
        walk.restart()
        return {}

    @classmethod
    def rebuild(cls, view: View, record: dict[str, Any]) -> None:
        """Nothing: the tables are held in a format, which comes back by itself."""

    def chosen(self, view: View, windows: Tensor, tied: bool) -> Tensor | None:
        """True for the tokens whose rows stay, [vocabulary]; None where all do."""
        vocabulary, width = view.embedding.weight.shape
        tables = 1 if tied else 2
        whole = view.numbers
        spare = (self.bits / 16 - 1) * whole + tables * vocabulary * width
        mask = tables * -(-vocabulary // 16)  # a bit a token, in numbers of 16 bits
        count = int((spare - mask) // (tables * width)) - 1
        if spare >= tables * vocabulary * width:
            return None
        assert count >= 1, "checked beforehand: one token's rows fit"
        used = torch.bincount(windows.flatten(), minlength=vocabulary)
        kept = torch.zeros(vocabulary, dtype=torch.bool)
        kept[used.argsort(descending=True, stable=True)[: min(count, vocabulary - 2)]] = True
        return kept


def _shared(table: Tensor, kept: Tensor) -> formats.SharedRows:
    """A table in its own type, one row standing for all that are not kept: their mean."""
    return formats.SharedRows.pack(table, kept, table[~kept].float().mean(0))
