"""A transformers model behind the one interface that measuring and decoding use."""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from backend.caches.attention import Turn
from backend.caches.codecs import Codec
from backend.errors import ModelError
from backend.models import held_attention, packing, rotary
from backend.models.familiar import refusal
from backend.models.lean import Lean, LeanSession
from backend.models.session import Session, held_cache, key_value_shape
from backend.models.view import View


class TransformersModel:
    """Logits and sessions of a causal language model of transformers."""

    def __init__(self, model: nn.Module, codec: Codec | None = None, *, lean: bool = True) -> None:
        """Wrap a model.

        Args:
            model: in evaluation mode.
            codec: holds keys and values; None for dense ones.
            lean: decode by the model's own modules where its architecture is known.

        Raises:
            ModelError: the codec wants the queries and this architecture hands out none.
        """
        self.model = model
        text = model.config.get_text_config()
        self.vocabulary_size: int = text.vocab_size
        end = model.generation_config.eos_token_id
        self.end_token: int | None = end[0] if isinstance(end, list) else end
        self.has_cache_method = codec is not None
        taken = inspect.signature(model.forward).parameters
        self._branching, self._keeping = "position_ids" in taken, "logits_to_keep" in taken
        self.loop = refusal(model) if lean else "decoded by transformers as it was asked for"
        self._lean = None if self.loop else Lean(model)
        if codec is not None and self._lean is not None and self.device.type == "cuda":
            codec = codec.on_gpu(key_value_shape(model.config)[1])
        if codec is not None and codec.layer(0).attends:
            held_attention.check(model)
        self.codec = codec
        self._open: weakref.WeakSet[LeanSession] = weakref.WeakSet()

    @property
    def pace(self) -> str:
        """What makes decoding slower than the products alone would be; empty if nothing."""
        if self._lean is None:
            return self.loop
        recorded = self.codec is None and self._lean.recorded
        whole = recorded or self._lean.step(self._lean.blocks) is not None
        return "" if whole else "each step runs module by module"

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def logits(self, tokens: Tensor) -> Tensor:
        """Logits [batch, length, vocabulary] of tokens [batch, length], without a cache."""
        return self.model(input_ids=tokens, use_cache=False).logits

    def states(self, tokens: Tensor) -> Tensor:
        """What the head reads, [batch, length, channels], of tokens [batch, length], uncached."""
        read: list[Tensor] = []
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
        try:
            self.logits(tokens.to(self.device))
        finally:
            hook.remove()
        return read[0]

    def session(self, batch: int, length: int) -> Session | LeanSession:
        """A fresh cache for `batch` sequences of at most `length` tokens."""
        turn = self.turn if self.codec is not None and self.codec.turns else None
        if self._lean is not None:
            session = LeanSession(self._lean, batch, length, self.codec, turn)
            self._open.add(session)
            return session
        cache, _ = held_cache(self.model.config, self.codec)
        branching = self._branching and batch == 1
        return Session(self.model, cache, branching=branching, keeping=self._keeping, turn=turn)

    def prefill(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[int]], room: int = 0
    ) -> tuple[Tensor, list[Session | LeanSession]]:
        """Last logits [prompts, vocabulary] of prompts read in one pass, and a session of each.

        Args:
            prompts: ids, none empty.
            rows: which of them share a row, by their places.
            room: tokens that each is to be written on by.

        Raises:
            ModelError: keys and values are not held dense.
        """
        if self.codec is not None:
            raise ModelError(
                "Prompts are read together into dense keys and values; leave the cache method out."
            )
        logits, states = packing.packed(self.model, prompts, rows)
        sessions = []
        for prompt, own in zip(prompts, states, strict=True):
            session = self.session(1, len(prompt) + room)
            session.take(own, len(prompt))
            sessions.append(session)
        return logits, sessions

    @cached_property
    def turn(self) -> Turn | None:
        """The model's rotary embedding, if it has one for all layers."""
        return rotary.find(self.model) if self._branching else None

    @property
    def untreated_layers(self) -> list[int]:
        """Layers whose keys and values the codec leaves to the model."""
        return held_cache(self.model.config, self.codec)[1]

    @cached_property
    def skippable(self) -> tuple[str, ...]:
        """Names of the halves of blocks (attention or network) that can be left out."""
        return tuple(self._halves)

    @cached_property
    def _halves(self) -> dict[str, tuple[str, ...]]:
        """Modules of each half; the first attention of its kind tells the cache's length."""
        view = View(self.model)
        config = self.model.config.get_text_config()
        kinds = getattr(config, "layer_types", None) or ["full"] * len(view.blocks)
        found = {}
        for half in view.halves():
            first = kinds.index(kinds[half.block]) == half.block
            if not (first and half.kind == "attention"):
                found[f"{half.kind} {half.block}"] = half.modules
        return found

    @contextlib.contextmanager
    def without(self, halves: Sequence[str]) -> Iterator[None]:
        """Inside, the model runs as if these halves of its blocks added nothing."""
        replaced: list[tuple[nn.Module, str, nn.Module]] = []
        try:
            for half in halves:
                for name in self._halves[half]:
                    parent, _, child = name.rpartition(".")
                    owner = self.model.get_submodule(parent)
                    replaced.append((owner, child, owner._modules[child]))
                    owner._modules[child] = _Absent(half.startswith("attention"))
            self._reread()
            yield
        finally:
            for owner, child, module in replaced:
                owner._modules[child] = module
            self._reread()

    def _reread(self) -> None:
        for session in self._open:
            session.reread()


class _Absent(nn.Module):
    """Adds nothing to what flows by."""

    def __init__(self, attention: bool) -> None:
        super().__init__()
        self._attention = attention

    def forward(self, hidden_states: Tensor, *_arguments: object, **_keywords: object) -> object:
        """Zeros, and no weights beside them where attention would give some."""
        zeros = torch.zeros_like(hidden_states)
        return (zeros, None) if self._attention else zeros
