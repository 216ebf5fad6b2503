"""Recursive speculative decoding: a tree drawn without taking any token twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.base import setting
from backend.methods.decode._drafted import Drafted

if TYPE_CHECKING:
    from backend.decoding.drawn_tree import EvenTreeDrafter
    from backend.decoding.model import LanguageModel


@dataclass(frozen=True)
class Rsd(Drafted):
    """Let a compressed version of the model draw several tokens at a place, none of them twice.

    After the text several tokens are drawn, after each of those some more, one depth after another.
    The model verifies the whole tree in one pass. A token that is refused takes what it offered
    from the model's chances, and the next one there is held against what is left, so that a text
    has exactly the model's own chances, and more drafts are kept than of one alone.
    """

    paper = "arXiv 2402.14160"
    claim = "Up to 2.13x, more tokens a call than chains or trees drawn independently."
    limits = (
        "Of the paper's two ways of drawing this is the one with as many tokens everywhere. "
        "Each depth runs the draft over the tree so far. A model that takes no positions from "
        "outside gets chains."
    )

    first: int = setting(3, "Tokens drawn after the text.", low=1, high=16)
    inner: int = setting(1, "Tokens drawn after each of the tree.", low=1, high=4)
    depth: int = setting(4, "Tokens one after another.", low=1, high=8)

    def drafting(self, draft: LanguageModel) -> EvenTreeDrafter:
        """A drafter that runs `draft`."""
        from backend.decoding.drawn_tree import EvenTreeDrafter

        return EvenTreeDrafter(draft, self.depth, self.first, self.inner)
