"""Runs token rows through a model in bounded batches; the only place that decides how.

A plain model sees a batch in one forward. A model with a cache method is run through a session,
a first part at once and then token by token, because only so its cache is what a user meets.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backend.decoding.model import LanguageModel, Session

# On a CPU small batches win: buffers that fit the caches and the allocator's free lists.
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
SESSION_TOKENS = 16384
BATCH_LOGITS = 2**27


@dataclass(frozen=True)
class Block:
    """Logits of some positions of some rows.

    Attributes:
        rows: indices [b] of the rows.
        start: input position of the first column.
        logits: [b, t, V] in the model's dtype; columns past the end of a row mean nothing.
    """

    rows: list[int]
    start: int
    logits: torch.Tensor


@dataclass(frozen=True)
class Continuation:
    """How a model takes to a given ending of one row.

    Attributes:
        log_probability: sum over the ending, in nats.
        exact: whether each of its tokens is the model's first choice.
        finite: whether all its logits were.
    """

    log_probability: float
    exact: bool
    finite: bool


@torch.inference_mode()
def blocks(
    model: LanguageModel, rows: Sequence[Sequence[int]], prefill: Sequence[int] | int = 16
) -> Iterator[Block]:
    """Yield the logits of all `rows` of token ids, batched by length.

    Args:
        model: the model.
        rows: token ids, none empty.
        prefill: tokens, or tokens per row, that a session takes in one call; a batch takes the
            fewest of its rows.
    """
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]), index))
    firsts = [prefill] * len(rows) if isinstance(prefill, int) else list(prefill)
    while order:
        batch = _batch(model, rows, firsts, order)
        begun = None
        with suppress(torch.OutOfMemoryError):
            begun = _begin(model, rows, firsts, batch)
        if begun is None:  # once more, with half of the rows; then it fails in words
            torch.cuda.empty_cache()
            batch = batch[: max(1, len(batch) // 2)]
            begun = _begin(model, rows, firsts, batch)
        first, session = begun
        del order[: len(batch)]
        yield first
        if session is not None:
            tokens = _padded(rows, batch).to(model.device)
            for position in range(first.logits.shape[1], tokens.shape[1]):
                fed = session.feed(tokens[:, position : position + 1])
                yield Block(batch, position, fed)


def _begin(
    model: LanguageModel, rows: Sequence[Sequence[int]], firsts: list[int], batch: list[int]
) -> tuple[Block, Session | None]:
    """The first logits of a batch, which take by far the most memory, and the session to go on."""
    tokens = _padded(rows, batch).to(model.device)
    if not model.has_cache_method:
        return Block(batch, 0, model.logits(tokens)), None
    longest = tokens.shape[1]
    session = model.session(len(batch), longest)
    first = max(1, min(longest, *(firsts[index] for index in batch)))
    return Block(batch, 0, session.feed(tokens[:, :first])), session


def _padded(rows: Sequence[Sequence[int]], batch: list[int]) -> torch.Tensor:
    tokens = torch.zeros(len(batch), len(rows[batch[-1]]), dtype=torch.int64)
    for line, index in enumerate(batch):
        tokens[line, : len(rows[index])] = torch.as_tensor(rows[index])
    return tokens


def _batch(
    model: LanguageModel, rows: Sequence[Sequence[int]], firsts: list[int], order: list[int]
) -> list[int]:
    """Return the leading indices of `order` that fit into one batch; at least one."""
    taken: list[int] = []
    most = BATCH_TOKENS.get(model.device.type, 4096)
    if model.has_cache_method:
        most = SESSION_TOKENS
    for index in order:
        length, count = len(rows[index]), len(taken) + 1
        at_once = min(firsts[index], length) if model.has_cache_method else length
        wide = count * at_once * model.vocabulary_size > BATCH_LOGITS
        if taken and (count * length > most or wide):
            break
        taken.append(index)
    return taken


def continuations(
    model: LanguageModel, heads: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]
) -> list[Continuation]:
    """Return how `model` takes to `endings[i]` after `heads[i]`, teacher-forced.

    A cache method sees each head at once, up to the shortest head of its batch.
    """
    rows = [[*head, *ending] for head, ending in zip(heads, endings, strict=True)]
    totals = torch.zeros(len(rows), dtype=torch.float64)
    exact = torch.ones(len(rows), dtype=torch.bool)
    finite = torch.ones(len(rows), dtype=torch.bool)
    for block in blocks(model, rows, [len(head) for head in heads]):
        width = block.logits.shape[1]
        lines, columns, targets, owners = [], [], [], []
        for line, index in enumerate(block.rows):
            begin = max(len(heads[index]) - 1, block.start)
            for position in range(begin, min(len(rows[index]) - 1, block.start + width)):
                lines.append(line)
                columns.append(position - block.start)
                targets.append(rows[index][position + 1])
                owners.append(index)
        if not lines:
            continue
        logits = block.logits[lines, columns].float()
        target = torch.tensor(targets, device=logits.device)
        scores = logits.log_softmax(-1).gather(1, target[:, None])[:, 0].cpu().double()
        owner = torch.tensor(owners)
        totals.index_add_(0, owner, scores)
        exact[owner[(logits.argmax(-1) != target).cpu()]] = False
        finite[owner[~logits.isfinite().all(-1).cpu()]] = False
    return [
        Continuation(float(total), bool(same), bool(good))
        for total, same, good in zip(totals, exact, finite, strict=True)
    ]
