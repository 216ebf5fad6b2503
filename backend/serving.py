"""The readings of what changes how a model reads and writes: prompts read together, and drafts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backend.drafting import Drafting
from backend.measure.reading import Reading
from backend.methods.base import DecodeMethod, PrefillMethod
from backend.models.language_model import TransformersModel
from backend.prefilling import Prefilling
from backend.recipes import Recipe
from backend.subject import Subject

Groups = list[tuple[str, Callable[[], list[Reading]], bool]]
PROVEN = {"smoke": 32, "quick": 32, "full": 128}  # tokens of each proof that nothing changes


@dataclass(frozen=True)
class Serving:
    """An artefact and the stages of its recipe that serve it.

    Attributes:
        recipe: what was done.
        tier: how much is proved.
        subject: the artefact.
        stream: recorded ids.
        seconds: that each gain is timed for; 0 for not at all.
    """

    recipe: Recipe
    tier: str
    subject: Subject
    stream: Callable[[], list[int]]
    seconds: float

    def groups(self) -> Groups:
        """Groups of readings, and whether each is timed."""
        found: Groups = []
        for stage in self.recipe.stages:
            if isinstance(stage, PrefillMethod):
                found += self._prefill(stage)
            if isinstance(stage, DecodeMethod):
                found += self._drafting(stage)
        return [one for one in found if self.seconds or not one[2]]

    def _prefill(self, method: PrefillMethod) -> Groups:
        subject = self.subject

        def reading() -> Prefilling:
            return Prefilling(method, subject.deployed, subject.prompts())

        def gain() -> list[Reading]:
            return reading().gain(self.stream(), subject.longest, self.seconds)

        proof = lambda: reading().proof(self._exact, PROVEN[self.tier])  # noqa: E731
        return [("proof of prefill", proof, False), ("prefill", gain, True)]

    def _drafting(self, method: DecodeMethod) -> Groups:
        subject = self.subject

        def drafting() -> Drafting:
            return Drafting(method, subject.deployed, subject.draft, subject.prompts())

        proof = lambda: drafting().proof(self._exact, PROVEN[self.tier])  # noqa: E731
        return [("proof", proof, False), ("drafting", lambda: drafting().gain(self.seconds), True)]

    def _exact(self) -> TransformersModel:
        return self.subject.exact
