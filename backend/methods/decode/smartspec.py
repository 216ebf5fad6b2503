"""SmartSpec: drafts as long as they pay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.methods.base import setting
from backend.methods.decode._drafted import Drafted

if TYPE_CHECKING:
    from backend.decoding.goodput import GoodputDrafter
    from backend.decoding.model import LanguageModel


@dataclass(frozen=True)
class Smartspec(Drafted):
    """Let a compressed version of the model write as far ahead as pays, or not at all.

    Before each draft the length is chosen that promises the most tokens a second: by the share of
    drafted tokens that were accepted lately, by what the draft takes for a token and by what the
    model takes to verify as many. Where no draft pays, the model writes alone. Now and then the
    other choice is timed again. The output is the model's own.
    """

    paper = "arXiv 2406.14066"
    claim = "Up to 3.2x lower latency than without drafts, never much higher."
    limits = (
        "The paper chooses for many requests at once, here it is one text. Lengths follow measured "
        "times, so that with a temperature the same seed may draw another text, of the same "
        "chances; without one the text is always the same."
    )

    longest: int = setting(10, "Most tokens of a draft.", low=1, high=64)

    def drafting(self, draft: LanguageModel) -> GoodputDrafter:
        """A drafter that runs `draft`."""
        from backend.decoding.goodput import GoodputDrafter

        return GoodputDrafter(draft, self.longest)
