"""What methods with a second model share: the recipe that makes it, and the refusal without it."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import SettingError
from backend.methods.base import DecodeMethod, Stage, setting

if TYPE_CHECKING:
    from backend.decoding.drafter import Drafter
    from backend.decoding.model import LanguageModel


@dataclass(frozen=True)
class Drafted(DecodeMethod):
    """A compressed version of the model drafts, made as part of the run."""

    stage = Stage.DECODE

    draft: str = setting("rtn@4", "Recipe of the draft, of weights and structure.", recipe=True)

    @property
    def draft_recipe(self) -> str:
        """As set."""
        return self.draft

    def drafter(self, model: LanguageModel, draft: LanguageModel | None = None) -> Drafter:  # noqa: ARG002
        """A drafter that runs `draft`.

        Raises:
            SettingError: there is no second model.
        """
        if draft is None:
            raise SettingError(f"{self.key()} needs the model that {self.draft} makes.")
        return self.drafting(draft)

    @abc.abstractmethod
    def drafting(self, draft: LanguageModel) -> Drafter:
        """A drafter that runs the second model."""
