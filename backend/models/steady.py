"""One token's step with every shape and address fixed, so that a GPU replays it as one graph.

A step of a small or a compressed model is hundreds of short kernels, and starting each from
Python takes longer than running it. Recorded once as a CUDA graph they start as one. For that
keys and values lie in room that stays where it is, the position is a number on the device, and
attention looks at a span of room of which a mask hides what is not written yet.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from backend.models.room import Room

if TYPE_CHECKING:
    from backend.models.lean import Lean
    from backend.models.native import Block

SPAN = 256
"""Shortest span of room that attention looks at; longer ones double."""
FIRST = 3
"""Steps that run kernel by kernel before they are recorded: kernels are chosen in them."""
MOST = 16
"""Steps recorded on one bench: spans, and sets of halves that are left out."""

States = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values of a block, [batch, heads, tokens, head_dim] each."""
Answer = Callable[[int, float, States], Tensor]
"""From a block's index, the scale and a block's states to what its queries find."""
Through = Callable[["Sequence[Block]", Tensor, tuple[Tensor, Tensor], Answer], Tensor]


def capture(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record what `run` does on the GPU; what comes back does it again, into the same tensor.

    Raises:
        RuntimeError: something in it waits for the processor, so that it cannot be recorded.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        found = run()

    def replay() -> Tensor:
        graph.replay()
        return found

    return replay


class Bench:
    """Room for a batch's keys and values, and the steps recorded on it; one session at a time.

    Args:
        batch: sequences.
        capacity: tokens that there is room for.
        blocks: of the model.
    """

    def __init__(self, batch: int, capacity: int, blocks: Sequence[Block]) -> None:
        self.batch, self.capacity = batch, capacity
        self._held: list[tuple[Tensor, Tensor] | None] = [None] * len(blocks)
        self._steps: dict[tuple[Any, ...], _Step] = {}
        self._user: weakref.ref[object] | None = None

    def taken(self) -> bool:
        """Whether a session that still lives uses it."""
        return self._user is not None and self._user() is not None

    def rooms(self, user: object) -> list[Room]:
        """Empty room for a session, of which there is one at a time."""
        self._user = weakref.ref(user)
        with torch.inference_mode():
            for part in (part for held in self._held for part in held or ()):
                part.zero_()  # what is hidden counts for nothing, unless it is not finite
        return [Room(self.capacity, held) for held in self._held]

    def nbytes(self, rooms: list[Room], asked: int) -> int:
        """Bytes of a session's rooms, of which as many tokens count as it asked for or fed.

        What a bench has beyond them is there for longer texts after it.
        """
        parts = ((part, max(asked, one.length)) for one in rooms for part in one.tensors())
        return sum(part.nbytes // part.shape[2] * count for part, count in parts)

    def step(
        self, lean: Lean, through: Through, blocks: Sequence[Block], rooms: list[Room], at: Tensor
    ) -> Tensor | None:
        """Logits [batch, 1, vocabulary] of one token for each sequence; None where it cannot be.

        Args:
            lean: the model.
            through: runs states through its blocks.
            blocks: those that it has now.
            rooms: the session's, all of the same length.
            at: ids [batch, 1].
        """
        used = [index for index, one in enumerate(blocks) if one.attention is not None]
        start = rooms[used[0]].length if used else 0
        if not 0 < start < self.capacity or any(rooms[i].length != start for i in used):
            return None
        for index in used:
            if self._held[index] is None:  # the prompt made it, and its shape is known since
                self._held[index] = rooms[index].held
                for part in self._held[index]:
                    part[:, :, start:].zero_()
            elif rooms[index].held is not self._held[index]:
                return None
        span = min(self.capacity, max(SPAN, 1 << start.bit_length()))
        key = span, *(id(part) for one in blocks for part in (one.attention, one.network))
        if key not in self._steps:
            if len(self._steps) == MOST:
                return None
            held = dict(zip(used, (self._held[index] for index in used), strict=True))
            self._steps[key] = _Step(lean, through, tuple(blocks), held, span, at)
        logits = self._steps[key](at, start)
        if logits is not None:
            for index in used:
                rooms[index].grow(1)
        return logits


@dataclass
class _Step:
    """A step on one bench through certain blocks, attention looking at one span."""

    lean: Lean
    through: Through
    blocks: tuple[Block, ...]
    held: dict[int, tuple[Tensor, Tensor]]
    span: int
    tokens: Tensor
    calls: int = 0
    run: Callable[[], Tensor] | None = field(init=False)

    def __post_init__(self) -> None:
        self.tokens, device = self.tokens.clone(), self.tokens.device
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.places = torch.arange(self.span, device=device)
        like = self.lean.embed(self.tokens)
        self.turns = self.lean.turns(slice(0, self.span), self.span, like)
        self.run = self._run

    def __call__(self, tokens: Tensor, position: int) -> Tensor | None:
        if self.run is None:
            return None
        self.tokens.copy_(tokens)
        self.position.fill_(position)
        self.calls += 1
        if self.calls == FIRST:
            try:
                self.run = capture(self._run)
            except RuntimeError:  # something waits for the processor: kernel by kernel, then
                self.run = None
                return None
        return self.run().clone()

    def _run(self) -> Tensor:
        hidden = self.lean.embed(self.tokens)
        cosine, sine = (part.index_select(0, self.position) for part in self.turns)
        seen = (self.places <= self.position)[None, None, None]

        def answer(index: int, scale: float, states: States) -> Tensor:
            (queries, keys, values), held = states, self.held[index]
            for part, new in zip(held, (keys, values), strict=True):
                part.index_copy_(2, self.position, new)
            every, all_values = (part[:, :, : self.span] for part in held)
            heads = keys.shape[1]
            grouped = queries.squeeze(2).unflatten(1, (heads, -1))  # a group's queries as tokens
            found = functional.scaled_dot_product_attention(
                grouped, every, all_values, attn_mask=seen, scale=scale
            )
            return found.flatten(1, 2).unsqueeze(2)

        return self.lean.read_out(self.through(self.blocks, hidden, (cosine, sine), answer))
