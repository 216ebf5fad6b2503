"""The dense model as the measure of everything: loaded when asked, its answers kept on disk.

Kept by content: the model's files, what was asked, this machine and torch's version. Two workers
that want the same thing at once take it in turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from backend.measure import quality, speed
from backend.measure.evaluation import EvaluationSet
from backend.measure.hardware import hardware_id
from backend.measure.reading import Reading
from backend.measure.reference import Reference, capture
from backend.models import precision
from backend.models.language_model import TransformersModel
from backend.models.load import LoadedModel, load
from backend.models.place import HERE, Place
from backend.models.view import View
from backend.recipes import digest
from backend.sources import ModelSource


class Baseline:
    """The dense model and what is known of it.

    Args:
        source: where it comes from.
        cache: folder of what is kept.
        fingerprint: of its files.
        place: where it is computed.
    """

    def __init__(
        self, source: ModelSource, cache: Path, fingerprint: str, place: Place = HERE
    ) -> None:
        self._source, self._cache, self._fingerprint = source, cache, fingerprint
        self._place = place

    @cached_property
    def model(self) -> TransformersModel:
        """The dense model as it is deployed, in the type in which it is computed."""
        return TransformersModel(self._loaded.model)

    def quickest(self) -> tuple[TransformersModel, str]:
        """The dense model in the type that decodes fastest here, and that type's name.

        Half the bytes are not always faster: without bfloat16 instructions, or on a model that
        fits the cache, float32 may win. What wins is what compression has to beat. On a GPU a model
        too large for float32 to be its computing type is not tried in it: it would not fit beside.
        """
        short = str(self._place.dtype).removeprefix("torch.")
        computed = self._place.computing_dtype(self._loaded.parameters)
        if self._place.kind != "cpu" and computed is self._place.dtype:
            return self.model, short
        # The one that is here already is timed as it is: a copy of a large model costs gigabytes.
        types = {str(computed).removeprefix("torch."): self.model}

        def of(name: str) -> TransformersModel:
            if name not in types:
                loaded = load(self._source, getattr(torch, name))
                types[name] = TransformersModel(self._place.put(loaded.model))
            return types[name]

        def decide() -> str:
            rates = {name: speed.decode_seconds(of(name)) for name in (short, "float32")}
            return min(rates, key=lambda name: rates[name])

        name = self.kept("quickest", decide, "decode")
        return of(name), name

    @cached_property
    def _loaded(self) -> LoadedModel:
        loaded = load(self._source, precision.DEPLOYED)
        precision.recast(loaded.model, self._place.computing_dtype(loaded.parameters))
        self._place.put(loaded.model)
        return loaded

    def reference(self, name: str, tokens: EvaluationSet) -> Reference:
        """Its distribution at every scored token."""
        key = self._key(tokens.key)
        path = self._cache / f"{name}-{key}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if path.is_file():
                return Reference.load(path, key)
            taken = capture(self.model, tokens, key)
            taken.save(path)
        return taken

    def noise_floor(self, tokens: EvaluationSet, reference: Reference) -> list[Reading]:
        """How far one bf16 rounding a block moves it from itself."""

        def take() -> list[dict[str, Any]]:
            blocks = View(self._loaded.model).blocks
            found = quality.noise_floor(self.model, blocks, tokens, reference)
            return [one.to_json() for one in found]

        return [Reading.from_json(one) for one in self.kept("floor", take, tokens.key)]

    def kept(self, name: str, make: Callable[[], Any], content: str) -> Any:
        """The plain JSON that `make` gives for this model, made once for this content."""
        path = self._cache / f"{name}-{self._key(content)}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if path.is_file():
                return json.loads(path.read_text())
            value = make()
            partial = path.with_suffix(".part")
            partial.write_text(json.dumps(value))
            partial.replace(path)
        return value

    def _key(self, content: str) -> str:
        return digest(
            [self._fingerprint, content, hardware_id(device=self._place.kind), torch.__version__]
        )
