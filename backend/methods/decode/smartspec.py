"""SmartSpec: drafts as long as they pay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import SettingError
from backend.methods.base import DecodeMethod, Stage, setting

if TYPE_CHECKING:
    from backend.decoding.goodput import GoodputDrafter
    from backend.decoding.model import LanguageModel


@dataclass(frozen=True)
class Smartspec(DecodeMethod):
    """Let a compressed version of the model write as far ahead as pays, or not at all.

    Before each draft the length is chosen that promises the most tokens a second: by the share of
    drafted tokens that were accepted lately, by what the draft takes for a token and by what the
    model takes to verify as many. Where no draft pays, the model writes alone. Now and then the
    other choice is timed again. The output is the model's own.
    """

    stage = Stage.DECODE
    paper = "arXiv 2406.14066"
    claim = "Up to 3.2x lower latency than without drafts, never much higher."
    limits = (
        "The paper chooses for many requests at once, here it is one text. Lengths follow measured "
        "times, so that with a temperature the same seed may draw another text, of the same "
        "chances; without one the text is always the same."
    )

    draft: str = setting("rtn@4", "Recipe of the draft, of weights and structure.", recipe=True)
    longest: int = setting(10, "Most tokens of a draft.", low=1, high=64)

    @property
    def draft_recipe(self) -> str:
        """As set."""
        return self.draft

    def drafter(self, model: LanguageModel, draft: LanguageModel | None = None) -> GoodputDrafter:  # noqa: ARG002
        """A drafter that runs `draft`.

        Raises:
            SettingError: there is no second model.
        """
        from backend.decoding.goodput import GoodputDrafter

        if draft is None:
            raise SettingError(f"{self.key()} needs the model that {self.draft} makes.")
        return GoodputDrafter(draft, self.longest)
