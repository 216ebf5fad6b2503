"""The artefact that is judged, loaded in the types in which it runs; takes no readings."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import torch

from backend import drafting
from backend.models import artefact, precision
from backend.models.language_model import TransformersModel
from backend.models.observing import codec_of
from backend.models.place import HERE, Place
from backend.recipes import Recipe
from data.texts import prompts as fixed_prompts


class Subject:
    """An artefact on disk, each form of it loaded when first asked for.

    Args:
        folder: of the artefact.
        recipe: what was done.
        parameters: of the dense model.
        place: where it runs.
    """

    def __init__(self, folder: Path, recipe: Recipe, parameters: int, place: Place = HERE) -> None:
        self._folder, self._recipe, self._parameters = folder, recipe, parameters
        self._place = place

    @cached_property
    def artefact(self) -> artefact.Artefact:
        """It as deployed: in the layouts of the fastest products here."""
        return artefact.load(self._folder, dtype=self._place.recast, device=self._place.device)

    @cached_property
    def deployed(self) -> TransformersModel:
        """The deployed form, ready to run."""
        model = self.artefact.loaded.model
        return TransformersModel(model, codec_of(self._recipe, model, self.artefact.tables))

    @cached_property
    def exact(self) -> TransformersModel:
        """It in float32, every weight as its format says."""
        found = artefact.load(
            self._folder, packed=False, dtype=torch.float32, device=self._place.device
        )
        model = found.loaded.model
        return TransformersModel(model, codec_of(self._recipe, model, found.tables))

    @property
    def computed(self) -> TransformersModel:
        """The form that is judged: the exact one where that fits, else the deployed one."""
        dtype = precision.computing_dtype(self._parameters)
        return self.deployed if dtype is precision.DEPLOYED else self.exact

    @cached_property
    def draft(self) -> TransformersModel | None:
        """The second model that drafts, if the recipe has one."""
        return drafting.second_model(self._folder, self._place)

    @property
    def longest(self) -> int:
        """Context that the model allows, in tokens."""
        return self.artefact.loaded.model.config.get_text_config().max_position_embeddings

    @property
    def bos(self) -> int | None:
        """The token that opens a text, if the model has one."""
        return self.artefact.loaded.tokenizer.bos_token_id

    def encode(self, text: str) -> list[int]:
        """Tokens of a text."""
        return self.artefact.loaded.encode(text)

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens."""
        return self.artefact.loaded.decode(list(tokens))

    def prompts(self) -> list[list[int]]:
        """Ids of the fixed prompts."""
        return [self.artefact.loaded.open(prompt.text) for prompt in fixed_prompts()]
