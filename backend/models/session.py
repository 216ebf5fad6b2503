"""A batch of sequences being decoded by a model of transformers, with its cache."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from backend.caches.attention import Turn
from backend.caches.base import LayerCache
from backend.caches.codecs import Codec
from backend.models.held_attention import Feed, answered_by_caches, visible
from backend.models.packing import States


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
        """Hand the new states on; a cache that attends takes them with their queries."""
        if self.held.attends:
            return key_states, value_states
        return self.held.append(key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that attention sees, and where they begin."""
        return self.held.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens taken in."""
        return self.held.length

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens, given as a negative number."""
        self.held.crop(self.held.length + tokens_to_remove)


def key_value_shape(config: Any) -> tuple[int, int]:
    """Number and size of the key-value heads of a model's configuration."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    return getattr(text, "num_key_value_heads", None) or heads, size


def held_cache(config: object, codec: Codec | None) -> tuple[Cache, list[int]]:
    """A cache for one batch, and the layers that `codec` does not treat.

    Layers with a sliding window of the model's own, or with no keys at all, stay as they are.
    """
    cache, left = DynamicCache(config=config), []
    if codec is not None:
        for index, layer in enumerate(cache.layers):
            if type(layer) is DynamicLayer:
                cache.layers[index] = _Adapter(codec.layer(index))
            else:
                left.append(index)
    return cache, left


class Session:
    """One batch of sequences being decoded, with its cache."""

    def __init__(
        self,
        model: nn.Module,
        cache: Cache,
        *,
        branching: bool,
        keeping: bool,
        turn: Turn | None,
    ) -> None:
        self._model, self._cache, self._turn = model, cache, turn
        self._attending = {
            index: layer.held
            for index, layer in enumerate(cache.layers)
            if isinstance(layer, _Adapter) and layer.held.attends
        }
        self.branching = branching
        self.length = 0
        self._keeping = keeping

    @torch.inference_mode()
    def feed(self, tokens: Tensor, parents: Sequence[int] | None = None) -> Tensor:
        """Append tokens [batch, t]; logits [batch, t, vocabulary] at their positions.

        Args:
            tokens: ids.
            parents: for a tree, the index of the token that each follows, -1 for the text's last.
        """
        return self._fed(tokens, parents, {})

    def ahead(self, token: int, count: int, end: int | None) -> list[int]:  # noqa: ARG002
        """No choices: each token is a call of its own."""
        return []

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> Tensor:
        """Append tokens [batch, t]; logits [batch, vocabulary] of the last position alone."""
        keywords = {"logits_to_keep": 1} if self._keeping else {}
        return self._fed(tokens, None, keywords)[:, -1]

    def _fed(
        self, tokens: Tensor, parents: Sequence[int] | None, keywords: dict[str, Any]
    ) -> Tensor:
        count, device = tokens.shape[1], tokens.device
        among, positions = None, None
        if parents is not None:
            among, depth = visible(list(parents), device)
            positions = self.length + depth
            keywords |= {"position_ids": positions[None], "attention_mask": self._mask(among)}
        with contextlib.ExitStack() as stack:
            if self._attending:
                if positions is None:
                    positions = torch.arange(self.length, self.length + count, device=device)
                feed = Feed(self._attending, positions, among, self._turn)
                stack.enter_context(answered_by_caches(self._model, feed))
            output = self._model(
                input_ids=tokens, past_key_values=self._cache, use_cache=True, **keywords
            )
        self.length += count
        return output.logits

    @torch.inference_mode()
    def take(self, states: States, count: int) -> None:
        """Begin with the dense keys and values of so many tokens, read elsewhere."""
        for index, own in enumerate(states):
            if own is not None:
                self._cache.update(*own, index)
        self.length = count

    def _mask(self, among: Tensor) -> Tensor:
        """What a model adds to its scores so that each token of a tree sees its own branch."""
        before = among.new_ones(among.shape[0], self.length)
        seen = torch.cat([before, among], dim=1)[None, None]
        if self._attending:
            return seen
        dtype = next(self._model.parameters()).dtype
        hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return hidden.masked_fill_(~seen, torch.finfo(dtype).min)

    def crop(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        self.pick(length, ())

    def pick(self, start: int, places: Sequence[int]) -> None:
        """Of the tokens after the first `start` keep only those at these places, in this order."""
        for layer in self._cache.layers:
            if isinstance(layer, _Adapter):
                layer.held.pick(start, places)
            elif layer.get_seq_length() > start:
                _pick(layer, start, places)
        self.length = min(self.length, start) + len(places)

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


def _croppable(layer: CacheLayerMixin) -> int:
    if isinstance(layer, _Adapter):
        return layer.held.croppable
    if not getattr(layer, "is_croppable", True):
        return 0
    window = getattr(layer, "sliding_window", None)  # beyond it, old states are dropped
    return sys.maxsize if window is None else max(0, window - 1 - layer.get_seq_length())


def _pick(layer: CacheLayerMixin, start: int, places: Sequence[int]) -> None:
    """Close up a layer of transformers; a plain beginning of what follows needs no copy."""
    if list(places) == list(range(len(places))):
        if surplus := layer.get_seq_length() - start - len(places):
            layer.crop(-surplus)
        return
    index = torch.tensor(
        [*range(start), *(start + place for place in places)], device=layer.keys.device
    )
    layer.keys, layer.values = (part.index_select(2, index) for part in (layer.keys, layer.values))
    if hasattr(layer, "cumulative_length"):
        layer.cumulative_length = len(index)
