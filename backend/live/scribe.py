"""The process that writes: keeps models loaded and streams what they write, token by token.

It is a worker of the jobs' kind whose event pipe is a socket, on which orders come in as JSON
lines. Everything it says of a token comes from the logits that chose it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from backend import drafting
from backend.decoding.drafter import Drafter, Silent
from backend.decoding.model import Session
from backend.decoding.speculate import Step, steps
from backend.device import wished
from backend.errors import DataError, ParetoscopeError
from backend.jobs.stream import Emitter
from backend.live.channel import Channel
from backend.live.shelf import Shelf
from backend.measure.hardware import usable_cores
from backend.measure.quiet import Quiet
from backend.measure.size import resident
from backend.measure.threads import quickest_threads
from backend.methods.base import DecodeMethod
from backend.models import artefact
from backend.models.language_model import TransformersModel
from backend.models.load import LoadedModel, load
from backend.models.observing import codec_of
from backend.models.place import choose
from backend.recipes import Recipe
from backend.sources import ModelSource

SHOWN = 5  # likeliest tokens told of each model


@dataclass(frozen=True)
class Writer:
    """A model ready to write."""

    loaded: LoadedModel
    model: TransformersModel
    recipe: Recipe
    draft: TransformersModel | None = None

    @property
    def drafter(self) -> Drafter:
        """A fresh drafter, silent where the recipe has none."""
        stages = self.recipe.stages
        method = next((one for one in stages if isinstance(one, DecodeMethod)), None)
        return Silent() if method is None else method.drafter(self.model, self.draft)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that are in memory to write, each storage once."""
        return resident(drafting.tensors_of(self.loaded.model, self.draft)).total


def serve(spec: dict[str, Any], folder: Path, emit: Emitter) -> None:
    """Write what is ordered until the desk hangs up or nothing is ordered for a while.

    Args:
        spec: `idle_seconds`.
        folder: below the home folder.
        emit: the channel to the desk.
    """
    torch.set_num_threads(quickest_threads(usable_cores()))
    quiet = Quiet(folder.parent / "cache" / "dense")
    channel, shelf = Channel(emit), Shelf(lambda one: one.nbytes)
    for order in channel.orders(spec["idle_seconds"]):
        try:
            with quiet.shared():
                _write(order, shelf, channel)
        except ParetoscopeError as error:
            channel.tell(order, failed=str(error))


def _write(order: dict[str, Any], shelf: Shelf[Writer], channel: Channel) -> None:
    source = ModelSource.from_json(order["source"])
    writers = []
    for number, pane in enumerate(order["panes"]):
        place = pane["artefact"]
        key = place or str(source)
        if key not in shelf:
            channel.tell(order, loading=pane["recipe"])
        writer, weights = shelf.take(key, lambda at=place: _open(source, at))
        channel.tell(order, pane=number, weights_bytes=weights)
        writers.append(writer)
    hands = [_hand(number, writer, writers[0], order) for number, writer in enumerate(writers)]
    while active := [hand for hand in hands if not hand.end]:
        for hand in active:
            for told in hand.go_on():
                channel.tell(order, pane=hand.number, **told)
            if channel.stopped(order):
                channel.tell(order, stopped=True)
                return
    channel.tell(order, done=True)


def _open(source: ModelSource, place: str | None) -> Writer:
    at = choose(wished(), source.parameters())
    if place is None:
        loaded = load(source, at.dtype)
        return Writer(loaded, TransformersModel(at.put(loaded.model)), Recipe(()))
    found = artefact.load(Path(place), dtype=at.recast, device=at.device)
    model = TransformersModel(
        found.loaded.model, codec_of(found.recipe, found.loaded.model, found.tables)
    )
    return Writer(found.loaded, model, found.recipe, drafting.second_model(Path(place), at))


def _hand(number: int, writer: Writer, dense: Writer, order: dict[str, Any]) -> Hand:
    prompt = writer.loaded.open(order["prompt"])
    count = order["new_tokens"]
    limit = writer.model.model.config.get_text_config().max_position_embeddings
    if not prompt or len(prompt) + count > limit:
        raise DataError(
            f"The prompt has {len(prompt)} tokens and {count} are to follow; this model reads 1 to "
            f"{limit} in all. Shorten the prompt or ask for fewer."
        )
    session = writer.model.session(1, len(prompt) + count)
    luck = {"temperature": order["temperature"], "seed": order["seed"]}
    stream = steps(writer.model, writer.drafter, prompt, count, session=session, **luck)
    judge = None if number == 0 else Judge(dense.model, prompt)
    return Hand(number, writer, stream, session, judge, count)


class Judge:
    """What the dense model would say at each place of another's text."""

    def __init__(self, model: TransformersModel, prompt: list[int]) -> None:
        self._model, self._session = model, model.session(1, len(prompt))
        self._next = prompt

    def read(self, tokens: tuple[int, ...]) -> torch.Tensor:
        """Logits [len(tokens), V] from which it would choose at the places of new tokens."""
        fed = torch.tensor([[*self._next, *tokens[:-1]]], device=self._model.device)
        self._next = [tokens[-1]]
        return self._session.feed(fed)[0, -len(tokens) :]


@dataclass
class Hand:
    """One model in the middle of a text."""

    number: int
    writer: Writer
    stream: Iterator[Step]
    session: Session
    judge: Judge | None
    count: int
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    seconds: float = 0.0
    end: str = ""

    def go_on(self) -> Iterator[dict[str, Any]]:
        """What one call of the model gives: an event for each token, and one for the end."""
        began = time.perf_counter()
        step = next(self.stream, None)
        self.seconds += time.perf_counter() - began
        if step is None:
            ended = bool(self.tokens) and self.tokens[-1] == self.writer.model.end_token
            self.end = "the end" if ended else "length"
            yield {"end": self.end}
            return
        dense = step.logits if self.judge is None else self.judge.read(step.tokens)
        for row, token in enumerate(step.tokens):
            self.tokens.append(token)
            yield self._told(token, step.logits[row], dense[row], drafted=row < step.accepted)

    def _told(
        self, token: int, own: torch.Tensor, dense: torch.Tensor, *, drafted: bool
    ) -> dict[str, Any]:
        expected, got = (one.float().log_softmax(-1) for one in (dense, own))
        told = {
            "token": token,
            "text": self._piece(),
            "top": self._top(got),
            "share": float(got[token].exp()),
            "seconds": self.seconds,
            "cache_bytes": self.session.cache_bytes(),
        }
        if self.judge is not None:
            told |= {
                "dense": self._top(expected),
                "dense_share": float(expected[token].exp()),
                "kl": max(0.0, float((expected.exp() * (expected - got)).nansum())),
            }
        return told | ({"drafted": True} if drafted else {})

    def _piece(self) -> str:
        """The text that the newest token adds; nothing while a character is incomplete."""
        whole = self.writer.loaded.decode(self.tokens)
        if whole.endswith("\ufffd"):
            return ""
        before, self.text = self.text, whole
        return whole.removeprefix(before)

    def _top(self, log_shares: torch.Tensor) -> list[list[Any]]:
        found = log_shares.topk(min(SHOWN, len(log_shares)))
        shares = found.values.exp().tolist()
        return [
            [self.writer.loaded.tokenizer.decode([token]), share]
            for token, share in zip(found.indices.tolist(), shares, strict=True)
        ]
