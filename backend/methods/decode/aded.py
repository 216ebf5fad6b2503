"""ADED: a draft searched in what the model said after each two tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.base import DecodeMethod, Stage, setting

if TYPE_CHECKING:
    from backend.decoding.model import LanguageModel
    from backend.decoding.trigrams import TrigramDrafter


@dataclass(frozen=True)
class Aded(DecodeMethod):
    """Follow the model's chances after each two tokens, and search them for a tree of drafts.

    A small table of chances after two tokens is drawn towards the model's own whenever the model
    is heard, refused drafts too. The draft is made by a tree search that weighs tokens that proved
    likely along their path against tokens it has not tried, so that a draft is deep where the
    table is sure and wide where it is not. No second model, no training; the output stays the same.
    """

    stage = Stage.DECODE
    paper = "arXiv 2407.12021"
    claim = "Up to 2.5x faster decoding without training."
    limits = (
        "The paper begins with a table made from a corpus; here it begins empty and learns from "
        "the prompt on. A wide tree pays where a pass over many tokens costs little more than over "
        "one. A model that takes no positions from outside gets chains."
    )

    width: int = setting(8, "Tokens kept after each two.", low=1, high=32)
    nodes: int = setting(16, "Tokens of a draft's tree.", low=1, high=128)
    keep: float = setting(
        0.5, "How much of an old chance stays when the model is heard again.", low=0.0, high=0.99
    )
    contexts: int = setting(65536, "Pairs of tokens that are remembered.", low=256, high=4194304)

    def drafter(
        self,
        model: LanguageModel,
        draft: LanguageModel | None = None,  # noqa: ARG002 - the table is enough
    ) -> TrigramDrafter:
        """A drafter with an empty table."""
        from backend.decoding.trigrams import TrigramDrafter

        return TrigramDrafter(
            model.vocabulary_size,
            width=min(self.width, model.vocabulary_size),
            nodes=self.nodes,
            keep=self.keep,
            contexts=self.contexts,
        )
