"""What drafting does to an artefact: proofs that it changes nothing, its bytes and its gain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from backend.decoding.greedy import generate
from backend.decoding.speculate import speculate
from backend.measure import lossless, size, speculation
from backend.measure.reading import Reading
from backend.methods.base import DecodeMethod
from backend.models import artefact
from backend.models.language_model import TransformersModel
from backend.models.place import HERE, Place

DRAWN = 4  # texts that are sampled to gather pairs for the proof of sampling


@dataclass(frozen=True)
class Drafting:
    """A model and what drafts for it.

    Attributes:
        method: of the recipe.
        variant: the artefact as it is deployed.
        draft: the second model, if the method has one.
        prompts: ids that texts begin with.
    """

    method: DecodeMethod
    variant: TransformersModel
    draft: TransformersModel | None
    prompts: Sequence[Sequence[int]]

    def proof(self, exact: Callable[[], TransformersModel], count: int) -> list[Reading]:
        """Proof that drafting changes no token, and with a temperature no chance of one.

        Args:
            exact: the artefact in float32.
            count: tokens of each text.
        """
        model = exact()
        plain = [one.tokens for one in generate(model, self.prompts, count)]
        drafted = self._written(model, count)
        deployed = self._written(self.variant, count)
        parted = lossless.divergences(self.variant, self.prompts, deployed)
        witness = lossless.Witness(self._drafter(self.variant))
        for number, prompt in enumerate(self.prompts[:DRAWN]):
            speculate(self.variant, witness, prompt, count, temperature=1.0, seed=number)
        found = lossless.token_readings(plain, drafted) + lossless.divergence_readings(parted)
        return found + (lossless.sampling_readings(witness.pairs) if witness.pairs else [])

    def gain(self, seconds: float) -> list[Reading]:
        """What drafting gains, in rounds with the same model without it."""
        drafter = self._drafter(self.variant)
        return speculation.measure_speculation(
            self.variant, drafter, self.prompts, seconds=seconds
        ).readings

    def _written(self, model: TransformersModel, count: int) -> list[tuple[int, ...]]:
        return [
            speculate(model, self._drafter(model), prompt, count).tokens for prompt in self.prompts
        ]

    def _drafter(self, model: TransformersModel):
        return self.method.drafter(model, self.draft)


def second_model(folder: Path, place: Place = HERE) -> TransformersModel | None:
    """The model beside an artefact that drafts for it, if there is one."""
    beside = folder / artefact.DRAFT
    if not beside.is_dir():
        return None
    found = artefact.load(beside, dtype=place.recast, device=place.device)
    return TransformersModel(found.loaded.model)


def cache_bytes(draft: TransformersModel | None, context: int) -> float:
    """Bytes of the cache that the second model fills in `context` tokens of text."""
    if draft is None:
        return 0.0
    found = {one.name: one.value for one in size.cache_readings(draft)}
    return found["kv_fixed_bytes"] + context * found["kv_bytes_per_token"]


def tensors_of(model: torch.nn.Module, draft: TransformersModel | None) -> list[torch.nn.Module]:
    """All modules whose tensors are in memory while text is written."""
    return [model] if draft is None else [model, draft.model]
