"""SWIFT: the model drafts for itself with some of its layers left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.base import DecodeMethod, Stage, setting

if TYPE_CHECKING:
    from backend.decoding.model import LanguageModel
    from backend.decoding.skipping import SkippingDrafter


@dataclass(frozen=True)
class Swift(DecodeMethod):
    """Draft with the same model, some attention and network halves of its blocks left out.

    A draft runs through the model's own cache and ends where the shallower model is no longer
    sure; the whole model verifies it. Which halves can go is learned while writing: sets are
    tried on the tokens just written, most of them near the best so far, some where all tries
    together promise more. No second model, no training, no memory beside; the output stays the
    same.
    """

    stage = Stage.DECODE
    paper = "arXiv 2410.06916"
    claim = "1.3x to 1.6x, more with larger models."
    limits = (
        "Small models have no layer to spare: with few blocks a draft is wrong too often to pay. "
        "The first attention of each kind always runs. Drafts are chains."
    )

    share: float = setting(0.45, "Share of halves left out.", low=0.05, high=0.9)
    draft_length: int = setting(8, "Most tokens of a draft.", low=1, high=64)
    confidence: float = setting(
        0.7, "A draft ends before a token less likely than this.", low=0.0, high=1.0
    )
    tries: int = setting(100, "Sets of halves tried while writing.", low=0, high=1000)
    context: int = setting(64, "Tokens that a set is tried on.", low=16, high=512)

    def drafter(
        self,
        model: LanguageModel,
        draft: LanguageModel | None = None,  # noqa: ARG002 - the model drafts for itself
    ) -> SkippingDrafter:
        """A drafter that has tried nothing yet."""
        from backend.decoding.skipping import SkippingDrafter

        return SkippingDrafter(
            model,
            share=self.share,
            length=self.draft_length,
            confidence=self.confidence,
            tries=self.tries,
            context=self.context,
        )
