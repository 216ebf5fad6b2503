"""SpecDec++ without its trained head: a draft ends where it is likely to be refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.base import setting
from backend.methods.decode._drafted import Drafted

if TYPE_CHECKING:
    from backend.decoding.model import LanguageModel
    from backend.decoding.second_model import ModelDrafter


@dataclass(frozen=True)
class SpecdecThreshold(Drafted):
    """Let a compressed version of the model write ahead for as long as it is sure enough.

    The best rule for when to end a draft is a threshold on the chance that one of its tokens is
    refused. SpecDec++ trains a head on the draft to tell that chance; without training the
    draft's own chances of what it wrote stand for it. Otherwise as speculative decoding with a
    draft of fixed length, and as exact.
    """

    paper = "arXiv 2405.19715, its threshold without its trained head"
    claim = "2.04x to 2.26x with the trained head, 7 to 11 % over drafts of fixed length."
    limits = (
        "A draft that is surer than it is right ends too late; the paper's head is not trained."
    )

    refusal: float = setting(
        0.7, "A draft ends where a refusal is likelier than this.", low=0.0, high=0.999
    )
    longest: int = setting(20, "Most tokens of a draft.", low=1, high=64)

    def drafting(self, draft: LanguageModel) -> ModelDrafter:
        """A drafter that runs `draft`."""
        from backend.decoding.second_model import ModelDrafter

        return ModelDrafter(draft, self.longest, self.refusal)
