"""Multi-draft speculative decoding: the likeliest tokens and one drawn, kept as often as can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.base import setting
from backend.methods.decode._drafted import Drafted

if TYPE_CHECKING:
    from backend.decoding.greedy_tree import GreedyTreeDrafter
    from backend.decoding.model import LanguageModel


@dataclass(frozen=True)
class Mdsd(Drafted):
    """Let a compressed version of the model offer its likeliest tokens, and one that is drawn.

    How often one of several drafts can be kept is the answer to a problem of optimal transport. It
    is known exactly where all drafts but the last are the likeliest tokens: the model's chances of
    these, and what both models agree on among all others. Verifying the one that was drawn before
    the others reaches that bound, and a text has exactly the model's own chances. The tree is
    verified in one pass.
    """

    paper = "arXiv 2502.18779"
    claim = "Greedy drafts reach their optimal acceptance, above that of drawing independently."
    limits = (
        "Of the paper's ways of drawing the one that is new; spectr draws independently, rsd "
        "without taking any twice. Its bounds for these are not computed while writing. Each depth "
        "runs the draft over the tree so far. A model that takes no positions from outside gets "
        "chains."
    )

    first: int = setting(4, "Tokens after the text.", low=1, high=16)
    inner: int = setting(1, "Tokens after each of the tree.", low=1, high=4)
    depth: int = setting(4, "Tokens one after another.", low=1, high=8)

    def drafting(self, draft: LanguageModel) -> GreedyTreeDrafter:
        """A drafter that runs `draft`."""
        from backend.decoding.greedy_tree import GreedyTreeDrafter

        return GreedyTreeDrafter(draft, self.depth, self.first, self.inner)
