"""SpecDec++ without its trained head: a draft ends where it is likely to be refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import SettingError
from backend.methods.base import DecodeMethod, Stage, setting

if TYPE_CHECKING:
    from backend.decoding.model import LanguageModel
    from backend.decoding.second_model import ModelDrafter


@dataclass(frozen=True)
class SpecdecThreshold(DecodeMethod):
    """Let a compressed version of the model write ahead for as long as it is sure enough.

    The best rule for when to end a draft is a threshold on the chance that one of its tokens is
    refused. SpecDec++ trains a head on the draft to tell that chance; without training the
    draft's own chances of what it wrote stand for it. Otherwise as speculative decoding with a
    draft of fixed length, and as exact.
    """

    stage = Stage.DECODE
    paper = "arXiv 2405.19715, its threshold without its trained head"
    claim = "2.04x to 2.26x with the trained head, 7 to 11 % over drafts of fixed length."
    limits = (
        "A draft that is surer than it is right ends too late; the paper's head is not trained."
    )

    draft: str = setting("rtn@4", "Recipe of the draft, of weights and structure.", recipe=True)
    refusal: float = setting(
        0.7, "A draft ends where a refusal is likelier than this.", low=0.0, high=0.999
    )
    longest: int = setting(20, "Most tokens of a draft.", low=1, high=64)

    @property
    def draft_recipe(self) -> str:
        """As set."""
        return self.draft

    def drafter(self, model: LanguageModel, draft: LanguageModel | None = None) -> ModelDrafter:  # noqa: ARG002
        """A drafter that runs `draft`.

        Raises:
            SettingError: there is no second model.
        """
        from backend.decoding.second_model import ModelDrafter

        if draft is None:
            raise SettingError(f"{self.key()} needs the model that {self.draft} makes.")
        return ModelDrafter(draft, self.longest, self.refusal)
