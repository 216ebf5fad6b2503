"""SpecTr: several texts drafted independently, one of them kept as often as can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.base import setting
from backend.methods.decode._drafted import Drafted

if TYPE_CHECKING:
    from backend.decoding.drawn_sequences import SequencesDrafter
    from backend.decoding.model import LanguageModel


@dataclass(frozen=True)
class Spectr(Drafted):
    """Let a compressed version of the model draw several texts, and keep the furthest that it may.

    To verify several drafts is to move the draft's chances onto the model's at the least cost:
    optimal transport, whose nearly best plan is K-SEQ. Each draft in turn is kept with the chance
    p / (d q), with the least divisor d that leaves a text exactly the model's own chances; if none
    is, one is drawn from what is left. The texts are verified in one pass, as a tree.
    """

    paper = "arXiv 2310.15141"
    claim = "2.13x on state-of-the-art models, 1.37x over drafting one text."
    limits = (
        "Without a temperature the likeliest tokens are drafted, which none of this changes. Each "
        "depth runs the draft over the tree so far. A model that takes no positions from outside "
        "gets one text."
    )

    texts: int = setting(4, "Texts drawn independently.", low=1, high=16)
    length: int = setting(4, "Tokens of each.", low=1, high=16)

    def drafting(self, draft: LanguageModel) -> SequencesDrafter:
        """A drafter that runs `draft`."""
        from backend.decoding.drawn_sequences import SequencesDrafter

        return SequencesDrafter(draft, self.texts, self.length)
