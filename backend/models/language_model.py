"""A transformers model behind the one interface that measuring and decoding use."""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from backend.caches.base import Codec, LayerCache


class _Adapter(CacheLayerMixin):
    """Lets a model of transformers keep its keys and values in one of our caches."""

    is_sliding = False
    is_croppable = True

    def __init__(self, held: LayerCache) -> None:
        super().__init__()
        self.held = held

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare."""

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *_arguments: object,
        **_keywords: object,
    ) -> tuple[Tensor, Tensor]:
        """Hand the new states on."""
        return self.held.append(key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that attention sees, and where they begin."""
        return self.held.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.held.length

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens, given as a negative number."""
        self.held.crop(self.held.length + tokens_to_remove)


def _croppable(layer: CacheLayerMixin) -> int:
    if isinstance(layer, _Adapter):
        return layer.held.croppable
    if not getattr(layer, "is_croppable", True):
        return 0
    window = getattr(layer, "sliding_window", None)  # beyond it, old states are dropped
    return sys.maxsize if window is None else max(0, window - 1 - layer.get_seq_length())


class Session:
    """One batch of sequences being decoded, with its cache."""

    def __init__(self, model: nn.Module, cache: Cache) -> None:
        self._model, self._cache = model, cache
        self.length = 0

    @torch.inference_mode()
    def feed(self, tokens: Tensor) -> Tensor:
        """Append tokens [batch, t]; logits [batch, t, vocabulary] at their positions."""
        output = self._model(input_ids=tokens, past_key_values=self._cache, use_cache=True)
        self.length += tokens.shape[1]
        return output.logits

    def crop(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        if length < self.length:
            self._cache.crop(length - self.length)
            self.length = length

    def croppable(self) -> int:
        """How many tokens may be fed next and be cropped again without a trace."""
        return min(map(_croppable, self._cache.layers), default=sys.maxsize)

    def cache_bytes(self) -> int:
        """Bytes of keys and values kept now."""
        total = 0
        for layer in self._cache.layers:
            if isinstance(layer, _Adapter):
                total += layer.held.nbytes
            elif layer.is_initialized:
                total += layer.keys.nbytes + layer.values.nbytes
        return total


class TransformersModel:
    """Logits and sessions of a causal language model of transformers."""

    def __init__(self, model: nn.Module, codec: Codec | None = None) -> None:
        """Wrap a model.

        Args:
            model: in evaluation mode.
            codec: holds keys and values; None for dense ones.
        """
        self.model, self.codec = model, codec
        text = model.config.get_text_config()
        self.vocabulary_size: int = text.vocab_size
        end = model.generation_config.eos_token_id
        self.end_token: int | None = end[0] if isinstance(end, list) else end
        self.has_cache_method = codec is not None

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def logits(self, tokens: Tensor) -> Tensor:
        """Logits [batch, length, vocabulary] of tokens [batch, length], without a cache."""
        return self.model(input_ids=tokens, use_cache=False).logits

    def session(self, batch: int, length: int) -> Session:  # noqa: ARG002 - caches here grow
        """A fresh cache for `batch` sequences of at most `length` tokens."""
        cache = DynamicCache(config=self.model.config)
        if self.codec is not None:
            for index, layer in enumerate(cache.layers):
                if type(layer) is DynamicLayer:
                    cache.layers[index] = _Adapter(self.codec.layer(index))
        return Session(self.model, cache)
