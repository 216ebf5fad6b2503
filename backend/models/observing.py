"""Lets a cache method look at a model while it reads, before the artefact is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from backend.caches.attention import Queries
from backend.caches.base import DenseLayerCache
from backend.caches.codecs import Codec
from backend.caches.seen import FittedCodec, Seen
from backend.methods.base import CacheMethod
from backend.models.language_model import TransformersModel
from backend.models.session import key_value_shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backend.recipes import Recipe


class Observed:
    """A model whose attention is watched while it reads.

    Args:
        model: in evaluation mode.
        windows: calibration tokens [windows, length].

    Raises:
        ModelError: its attention cannot be watched.
    """

    def __init__(self, model: nn.Module, windows: Tensor) -> None:
        self._seen: dict[int, Seen] = {}
        self._model = TransformersModel(model, _WatchingCodec(self._seen))
        self.windows = windows
        self.vocabulary_size = self._model.vocabulary_size
        text = model.config.get_text_config()
        self.longest = int(getattr(text, "max_position_embeddings", windows.shape[1]))

    @torch.inference_mode()
    def __call__(self, tokens: Tensor) -> dict[int, Seen]:
        """What each treated layer saw of texts [texts, tokens], by its index."""
        self._seen.clear()
        self._model.session(*tokens.shape).feed(tokens.to(self._model.device))
        return dict(self._seen)


def codec_of(
    recipe: Recipe, model: nn.Module, tables: Mapping[str, Tensor] | None = None
) -> Codec | None:
    """What a recipe holds a model's keys and values in; None where it leaves them dense.

    Args:
        recipe: with at most one cache method.
        model: whose caches are to be made.
        tables: what `learned` found of the model; None where it was not looked at.
    """
    method = next((one for one in recipe.stages if isinstance(one, CacheMethod)), None)
    if method is None:
        return None
    codec = method.codec(*key_value_shape(model.config))
    return codec.fitted(tables) if tables and isinstance(codec, FittedCodec) else codec


def learned(recipe: Recipe, model: nn.Module, windows: Tensor) -> dict[str, Tensor]:
    """What the cache method of a recipe must know of a compressed model; empty for nothing."""
    codec = codec_of(recipe, model)
    return codec.learn(Observed(model, windows)) if isinstance(codec, FittedCodec) else {}


class _WatchingCodec(Codec):
    """Caches that keep nothing away and note what they are handed."""

    turns = True

    def __init__(self, seen: dict[int, Seen]) -> None:
        self._seen = seen

    def layer(self, index: int) -> _WatchingCache:
        """An empty cache."""
        return _WatchingCache(self._seen, index)

    def bits(self, heads: int, head_dim: int) -> float:  # noqa: ARG002 - of any size
        """As they are."""
        return 16.0


class _WatchingCache(DenseLayerCache):
    attends = True

    def __init__(self, seen: dict[int, Seen], index: int) -> None:
        super().__init__()
        self._seen, self._index = seen, index

    def attend(self, queries: Queries, keys: Tensor, values: Tensor) -> Tensor:
        """As dense attention, and note what came."""
        self._seen[self._index] = Seen(queries, keys, values)
        return super().attend(queries, keys, values)
