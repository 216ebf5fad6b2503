"""Speculative decoding: a compressed version of the model drafts for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.base import setting
from backend.methods.decode._drafted import Drafted

if TYPE_CHECKING:
    from backend.decoding.model import LanguageModel
    from backend.decoding.second_model import ModelDrafter


@dataclass(frozen=True)
class Speculative(Drafted):
    """Let a compressed version of the model write ahead, and verify what it wrote in one pass.

    The draft is made as part of the run, by any recipe of weights and structure, and lies beside
    the model: its bytes are counted on disk, in memory and, with a cache of its own, in the
    footprint. What the model would not have written is refused; with a temperature, a refused
    token is replaced so that each comes out with exactly the model's own chance.
    """

    paper = "arXiv 2211.17192"
    claim = "2x to 3x with a draft much cheaper than the model, the output unchanged."
    limits = "Pays only where the draft runs much faster than the model, not where it is smaller."

    draft_length: int = setting(4, "Tokens written ahead at a time.", low=1, high=32)

    def drafting(self, draft: LanguageModel) -> ModelDrafter:
        """A drafter that runs `draft`."""
        from backend.decoding.second_model import ModelDrafter

        return ModelDrafter(draft, self.draft_length)
