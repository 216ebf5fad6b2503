"""Decodes models of Llama's shape without the machinery around each step of transformers.

The same products in the same order by the same modules, with keys and values written into room
that was set aside: what transformers does beside them takes most of a small model's step. Only
where every module is of a kind that is known here; everything else goes through transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from backend.caches.attention import Queries, Turn
from backend.caches.base import Coming, LayerCache
from backend.caches.codecs import Codec
from backend.models import native, packing
from backend.models.by_modules import found_in, normalised, through
from backend.models.held_attention import visible
from backend.models.native import Block
from backend.models.room import Room
from backend.models.sliced import SlicedBlock
from backend.models.steady import SPAN, Bench, States
from kernels.decode_step import TOKENS, Place, Step
from kernels.rooms import Rooms

AHEAD = 16
"""Tokens written without a look at whether someone wants to stop."""
FREE = 4
"""Benches kept for later sessions; each holds room on the GPU and what was recorded on it."""

Tree = tuple[Tensor | None, Tensor | None]
"""Positions [tokens] of new tokens, and which of them each may see; None where nothing is odd."""


class Lean:
    """A model that is decoded step by step by its own modules."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self._inner = model, model.model
        self._steps: dict[tuple[nn.Module, ...], Step | None] = {}
        self._benches: list[Bench] = []
        self._cosine = self._sine = torch.empty(0)
        self._every: tuple[Tensor, ...] = ()

    @property
    def blocks(self) -> list[Block]:
        """The blocks as they are now."""
        found = []
        for block in self._inner.layers:
            attention, network = block.self_attn, block.mlp
            shortcuts = None
            if isinstance(block, SlicedBlock):
                shortcuts = block.attention_shortcut, block.mlp_shortcut
            found.append(
                Block(
                    attention if hasattr(attention, "q_proj") else None,
                    network if hasattr(network, "gate_proj") else None,
                    block.input_layernorm,
                    block.post_attention_layernorm,
                    shortcuts,
                )
            )
        return found

    def step(self, blocks: Sequence[Block]) -> Step | None:
        """One call for a whole step through these blocks, made once; None where there is none."""
        halves = (half for one in blocks for half in (one.attention, one.network))
        key = (
            *(module for half in halves if half is not None for module in half.children()),
            *(self._inner.embed_tokens, self._inner.norm, self.model.lm_head),
        )
        if key not in self._steps:
            self._steps[key] = native.step(self.model, blocks)
        return self._steps[key]

    @property
    def recorded(self) -> bool:
        """Whether single tokens are fed by a step that is recorded once."""
        return next(self.model.parameters()).device.type == "cuda"

    def bench(self, batch: int, length: int) -> Bench:
        """Where a session of so many sequences and tokens works: one that is free, or a new one."""
        free = [one for one in self._benches if not one.taken()]  # used longest ago first
        fitting = [one for one in free if one.batch == batch and one.capacity >= length]
        gone = fitting[:1]
        if not fitting:
            capacity = max(SPAN, 1 << (length - 1).bit_length())
            fitting, gone = [Bench(batch, capacity, self.blocks)], free[: 1 - FREE]
        self._benches = [one for one in self._benches if one not in gone] + fitting[:1]
        return fitting[0]

    def embed(self, tokens: Tensor) -> Tensor:
        """Hidden states [batch, tokens, channels] of ids [batch, tokens]."""
        return self._inner.embed_tokens(tokens)

    def read_out(self, hidden: Tensor) -> Tensor:
        """Logits [batch, tokens, vocabulary]."""
        return self.model.lm_head(normalised(self._inner.norm, hidden))

    def turns(self, positions: Tensor | slice, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [tokens, head_dim] of positions below `end`.

        Sines of the first half are negative, as they turn the second half into the first.
        """
        self._prepare(end, like)
        return self._cosine[positions], self._sine[positions]

    def every_turn(self, end: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The same [`end` or more, head_dim] in float32, as a model of `dtype` has them."""
        if self._cosine.shape[0] < end or self._cosine.dtype != dtype or not self._every:
            self._prepare(end, torch.empty(1, dtype=dtype))
            self._every = self._cosine.float().contiguous(), self._sine.float().contiguous()
        return self._every

    def _prepare(self, end: int, like: Tensor) -> None:
        if self._cosine.shape[0] < end or self._cosine.dtype != like.dtype:
            every = torch.arange(max(256, 2 * end), device=like.device)[None]
            cosine, sine = self._inner.rotary_emb(like, position_ids=every)
            half = sine.shape[-1] // 2
            self._cosine = cosine[0]
            self._sine = torch.cat([-sine[0, :, :half], sine[0, :, half:]], dim=-1)
            self._every = ()


class LeanSession:
    """One batch of sequences being decoded.

    Args:
        lean: the model.
        batch: sequences; with more than one no tree can be fed.
        length: most tokens; room for them is set aside.
        codec: holds keys and values; None for dense ones.
        turn: the model's rotary embedding, for caches that move states to other positions.
    """

    def __init__(
        self, lean: Lean, batch: int, length: int, codec: Codec | None, turn: Turn | None
    ) -> None:
        self._lean, self._turn, self._asked = lean, turn, length
        self._whole = batch == 1
        self._bench = lean.bench(batch, length) if codec is None and lean.recorded else None
        self._caches: list[LayerCache] = (
            self._bench.rooms(self)
            if self._bench is not None
            else [
                Room(length) if codec is None else codec.layer(index)
                for index in range(len(lean.blocks))
            ]
        )
        self._dense = codec is None
        self.branching = batch == 1
        self.length = 0
        self.reread()

    def reread(self) -> None:
        """Look at the model's blocks again."""
        self._blocks = self._lean.blocks
        alone = self._whole and self._bench is None
        self._step = self._lean.step(self._blocks) if alone else None
        self._coming: dict[int, list[Coming | None]] = {}
        self._ready = Rooms(), 0  # dense rooms, and what fits into each; until they may be enlarged
        if self._step is not None:
            self._dtype = self._lean.embed(torch.zeros(1, 1, dtype=torch.int64)).dtype

    def feed(self, tokens: Tensor, parents: Sequence[int] | None = None) -> Tensor:
        """Append tokens [batch, t]; logits [batch, t, vocabulary] at their positions.

        Args:
            tokens: ids.
            parents: for a tree, the index of the token that each follows, -1 for the text's last.
        """
        return self._fed(tokens, parents, None)

    def read(self, tokens: Tensor) -> Tensor:
        """Append tokens [batch, t]; logits [batch, vocabulary] of the last position alone."""
        return self._fed(tokens, None, 1)[:, -1]

    def ahead(self, token: int, count: int, end: int | None) -> list[int]:
        """Feed a token and then each first choice; the choices, none where a step is not one call.

        Args:
            token: an id; the text is the only one.
            count: most choices; fewer come where room or time runs out.
            end: after which nothing is chosen.

        Raises:
            IndexError: the id is none of the vocabulary.
        """
        count = min(count, self._ready[1] - self.length, AHEAD)
        if self._step is None or not self._step.embeds or count < 1:
            return []
        turns = self._lean.every_turn(self.length + count, self._dtype)
        found = self._step.ahead(token, turns, self.length, self._ready[0], count, end)
        for cache in self._caches:
            cache.grow(len(found))
        self.length += len(found)
        return found

    def _fed(self, tokens: Tensor, parents: Sequence[int] | None, last: int | None) -> Tensor:
        """Logits of so many last positions, or of all."""
        if self._step is None or tokens.shape[1] > TOKENS:
            return self._by_modules(tokens, parents, last)
        if self._dense:  # nothing but the extension computes
            found = self._in_one_call(tokens, parents, last)
        else:
            with torch.inference_mode():
                found = self._in_one_call(tokens, parents, last)
        return self._by_modules(tokens, parents, last) if found is None else found

    def _in_one_call(
        self, tokens: Tensor, parents: Sequence[int] | None, last: int | None
    ) -> Tensor | None:
        """The same by a step in one call; None where halves were left out before."""
        start, count = self.length, tokens.shape[1]
        among = places = None
        if parents is not None:
            among, depth = visible(list(parents), tokens.device)
            places = start + depth
        if self._dense and start + count <= self._ready[1]:
            for cache in self._caches:
                cache.grow(count)
            rooms: Sequence[Place] = self._ready[0]
        elif (rooms := self._reserved(count, (places, among))) is None:
            return None
        self.length = start + count
        given = tokens[0]
        if not self._step.embeds:
            given = self._lean.embed(tokens)[0].to(torch.float32, copy=True)
        turns = self._lean.every_turn(start + count, self._dtype)
        logits = self._step(given, turns, start, rooms, among, places, last)
        if not self._dense:
            for cache in self._caches:
                cache.settle()
        return logits

    def _reserved(self, count: int, tree: Tree) -> Sequence[Place] | None:
        """Where so many tokens go in each block; None where halves were left out before."""
        start = self.length
        pairs = list(zip(self._coming_of(count), self._caches, strict=True))
        if any(coming is not None and cache.length != start for coming, cache in pairs):
            return None
        rooms: list[Place] = [None if one is None else cache.reserve(one) for one, cache in pairs]
        if None not in rooms:
            if self._dense:
                self._ready = Rooms(rooms), min(cache.capacity for cache in self._caches)
            return rooms
        positions, among = tree
        if positions is None:
            positions = torch.arange(start, start + count)
        for index, (coming, cache) in enumerate(pairs):
            if coming is not None and rooms[index] is None:
                scale = self._blocks[index].attention.scaling
                rooms[index] = partial(self._ask, scale, cache, (positions, among))
        return rooms

    def _coming_of(self, count: int) -> list[Coming | None]:
        """What so many tokens are to each block's cache; None where it has no attention."""
        if count not in self._coming:
            self._coming[count] = [
                one and Coming(
                    one.k_proj.out_features // one.head_dim, one.head_dim, count, self._dtype,
                    self._turn, one.q_proj.out_features // one.head_dim, one.scaling,
                )
                for one in (block.attention for block in self._blocks)
            ]  # fmt: skip
        return self._coming[count]

    @torch.inference_mode()
    def _by_modules(
        self, tokens: Tensor, parents: Sequence[int] | None, last: int | None
    ) -> Tensor:
        """The same by the blocks' own modules."""
        start, end = self.length, self.length + tokens.shape[1]
        self._ready = Rooms(), 0
        if self._bench is not None and end == start + 1:
            logits = self._bench.step(self._lean, through, self._blocks, self._caches, tokens)
            if logits is not None:
                self.length = end
                return logits
        among, positions, places = None, slice(start, end), None
        if parents is not None:
            among, depth = visible(list(parents), tokens.device)
            places = positions = start + depth
        hidden = self._lean.embed(tokens)
        turns = self._lean.turns(positions, end, hidden)
        if places is None and self._caches[0].attends:
            places = torch.arange(start, end, device=tokens.device)
        hidden = through(self._blocks, hidden, turns, partial(self._answer, (places, among)))
        self.length = end
        return self._lean.read_out(hidden if last is None else hidden[:, -last:])

    def _ask(self, scale: float, cache: LayerCache, tree: Tree, *states: Tensor) -> Tensor:
        """What the queries of a step find; its states lie in room that the step writes over."""
        queries, keys, values = (part.to(self._dtype, copy=True) for part in states)
        return found_in(cache, Queries(queries, scale, *tree, turn=self._turn), keys, values)

    def _answer(self, tree: Tree, index: int, scale: float, states: States) -> Tensor:
        """What the queries of a block find in its cache."""
        queries, keys, values = states
        asked = Queries(queries, scale, *tree, turn=self._turn)
        return found_in(self._caches[index], asked, keys, values)

    @torch.inference_mode()
    def take(self, states: packing.States, count: int) -> None:
        """Begin with the dense keys and values of so many tokens, read elsewhere."""
        self._ready = Rooms(), 0
        for cache, own in zip(self._caches, states, strict=False):
            if own is not None:
                cache.append(*own)
        self.length = count

    def crop(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        self.pick(length, ())

    def pick(self, start: int, places: Sequence[int]) -> None:
        """Of the tokens after the first `start` keep only those at these places, in this order."""
        if start + len(places) == self.length and list(places) == list(range(len(places))):
            return  # all of them
        with torch.inference_mode():
            for cache in self._caches:
                cache.pick(start, places)
        self.length = min(self.length, start) + len(places)

    def croppable(self) -> int:
        """How many tokens may be fed next and be cropped again without a trace."""
        return min(cache.croppable for cache in self._caches)

    def cache_bytes(self) -> int:
        """Bytes set aside for keys and values now."""
        if self._bench is not None:
            return self._bench.nbytes(self._caches, self._asked)
        return sum(cache.nbytes for cache in self._caches)
